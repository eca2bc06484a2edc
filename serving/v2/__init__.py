"""The Open Inference Protocol: what travels over `/v2`, in and out."""
