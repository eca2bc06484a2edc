"""What the service tells: metrics, logs, traces."""
