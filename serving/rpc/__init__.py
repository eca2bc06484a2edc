"""The Open Inference Protocol over gRPC: other bytes around the same data plane as `v2`."""
