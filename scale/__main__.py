"""`python -m dubio.scale` is `dubio-score`."""

from __future__ import annotations

import sys

from dubio.scale.cli import main

if __name__ == "__main__":
    sys.exit(main())
