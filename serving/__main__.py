from __future__ import annotations

import sys

from dubio.serving.cli import main

if __name__ == "__main__":
    sys.exit(main())
