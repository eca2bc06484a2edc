"""A committee that is measured for a moment only: which strategy is the fastest does not matter to most tests."""

from __future__ import annotations

from functools import partial

from dubio.uncertainty import Committee

quick_committee = partial(Committee, measure_seconds=0.1)
