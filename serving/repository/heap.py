"""The heap: what lives as long as the models do is kept out of the garbage collector's way.

torch alone is half a million objects: a full collection would stop the service for a quarter of a second every few
thousand requests, and find nothing among them.
"""

from __future__ import annotations

import gc


def freeze() -> None:
    """Collect what is garbage, and let the collector pass over all that is left."""
    gc.collect()
    gc.freeze()


def refreeze() -> None:
    """Do it again after a model went: it may have been among what is passed over, and in a reference cycle."""
    if gc.get_freeze_count():
        gc.unfreeze()
        freeze()
