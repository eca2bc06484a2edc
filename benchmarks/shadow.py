"""What does a shadow cost those who ask the live version?

    apt-get install wrk
    python benchmarks/shadow.py                      32 connections, one in twenty a stranger
    python benchmarks/shadow.py --connections 1

Serves the model of `benchmarks/service.py` twice, with the same file as its shadow and without one, and loads both
over loopback with wrk in turns; medians of the rounds, and of their ratios, are printed. Only one of them is asked at
a time; client, service and shadow share this machine's cores.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from paired import compare, parse
from service import checkpoint


def main() -> None:
    """Measure and print."""
    arguments = parse(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = checkpoint(folder)
        services = []
        for root, versions in (("plain", ["1"]), ("shadowed", ["1", "2.shadow"])):
            for version in versions:
                (folder / root / "mlp" / version).mkdir(parents=True)
                shutil.copy(model, folder / root / "mlp" / version / "model.ckpt")
            repository = ["--model-repository", str(folder / root)]
            services.append([sys.executable, "-m", "dubio.serving", *repository, "--log-level", "error"])
        compare(folder, services, ("without a shadow", "with"), arguments)


if __name__ == "__main__":
    main()
