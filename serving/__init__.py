"""Dubio's service: every answer comes twice, with its doubts, and every stranger is flagged."""
