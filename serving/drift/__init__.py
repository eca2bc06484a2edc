"""Drift: whether the rows that are served are still like the calibration rows."""
