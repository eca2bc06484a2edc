"""What does the store cost those who ask?

    apt-get install wrk
    python benchmarks/store.py                       32 connections, one in twenty a stranger
    python benchmarks/store.py --connections 1 --strangers 1.0

Serves the model of `benchmarks/service.py` twice, with a store (SQLite, one in a hundred other rows sampled) and
without, and loads both over loopback with wrk in turns; medians of the rounds, and of their ratios, are printed. Only
one of them is asked at a time, and client and server share this machine's cores.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from paired import compare, parse
from service import checkpoint


def main() -> None:
    """Measure and print."""
    arguments = parse(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        serve = [sys.executable, "-m", "dubio.serving", f"mlp={checkpoint(folder)}", "--log-level", "error"]
        storing = [*serve, "--store", str(folder / "store.sqlite")]
        compare(folder, (serve, storing), ("without a store", "with"), arguments)
        with closing(sqlite3.connect(folder / "store.sqlite")) as connection:
            [(stored,)] = connection.execute("SELECT count(*) FROM answers").fetchall()
        print(f"{stored} rows were stored.")


if __name__ == "__main__":
    main()
