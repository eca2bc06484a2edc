"""The service's own log: what it does and what went wrong, on the standard error. Requests have the access log."""

from __future__ import annotations

import logging


def configure_log(level: str, *, worker: int | None = None) -> None:
    """Log from `level` on, a line a message; a worker's lines carry its number."""
    name = "%(name)s" if worker is None else f"%(name)s[{worker}]"
    logging.basicConfig(level=level.upper(), format=f"%(asctime)s %(levelname)s {name}: %(message)s")
    # It tells of its own plugins at every start.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
