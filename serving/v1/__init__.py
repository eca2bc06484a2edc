"""Dubio's own API: what travels over `/v1`, in and out."""
