"""Shadows: versions that answer a copy of the traffic without being seen, until one of them is promoted."""
