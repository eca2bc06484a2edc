"""How fast are files scored, in one process and on Ray, and how much memory does it take?

    python benchmarks/scoring.py runs/digits_mlp/model.ckpt --rows 10000 200000
    python benchmarks/scoring.py runs/digits_mlp/model.ckpt --rows 1000000 --samples 2
    python benchmarks/scoring.py runs/digits_mlp/model.ckpt --ray-workers 2

Rows are scikit-learn's digits over and over, in an `.npz` file; the output is a Parquet file. Each run is a process of
its own: *seconds* are those from its start to its end, *processor* those that it computed, without Ray's workers, and
*scoring* is what it says itself, without its start; the peak is of its own memory. Answers on Ray are held against
those of one process.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from engine import show
from sklearn.datasets import load_digits

LINE = re.compile(r"(\d+) rows scored in .* \(([\d,]+) rows/s\)")
ROUNDING = 1e-5


def write(path: Path, rows: int) -> Path:
    """Digits over and over, with the number of each as its key."""
    images = load_digits().images.astype(np.uint8)
    np.savez(path, x=np.resize(images, (rows, *images.shape[1:])), key=np.arange(rows))
    return path


def run(checkpoint: str, source: Path, output: Path, *more: str) -> list[str]:
    """Score a file; gives seconds by the clock and of the processor, rows a second, and the peak in MiB."""
    command = [sys.executable, "-m", "dubio.scale", checkpoint, str(source), str(output), "--ids", "key", *more]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        said.seek(0)
        text = said.read()
    told = LINE.search(text)
    if process.returncode or told is None:
        raise SystemExit(text)
    computed = usage.ru_utime + usage.ru_stime
    return [f"{seconds:.1f}", f"{computed:.1f}", told[2], f"{usage.ru_maxrss / 1024:.0f}"]


def differences(one: Path, other: Path) -> str:
    """How two outputs differ."""
    first, second = pl.read_parquet(one), pl.read_parquet(other)
    if first.equals(second):
        return "none"
    if not first.select("row", "key", "deterministic.label").equals(second.select("row", "key", "deterministic.label")):
        return "other rows"
    means = [name for name in first.columns if name.startswith("mc.mean.")]
    apart = np.abs(first.select(means).to_numpy() - second.select(means).to_numpy()).max()
    flags = int((first["ood.flagged"] != second["ood.flagged"]).sum())
    return f"mean up to {apart:.1e}, {flags} flags" if apart <= ROUNDING else f"MEAN UP TO {apart:.1e}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 200_000])
    parser.add_argument("--samples", help="members that answer, as dubio-score takes it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ray-workers", type=int, help="also on a Ray cluster of this machine")
    given = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            source, one = write(Path(folder, "rows.npz"), rows), Path(folder, f"one{rows}.parquet")
            part = ["--part-rows", str(min(10_000, max(1, rows // 8)))]
            part += ["--samples", given.samples] if given.samples else []
            alone = run(given.checkpoint, source, one, "--threads", str(given.threads), *part)
            lines.append([f"{rows}", "one process", *alone, ""])
            if given.ray_workers:
                ray = ("--ray", "local", "--ray-workers", str(given.ray_workers))
                other = Path(folder, f"ray{rows}.parquet")
                timed = run(given.checkpoint, source, other, *ray, *part)
                lines.append([f"{rows}", f"Ray, {given.ray_workers} workers", *timed, differences(one, other)])
    show([["rows", "where", "seconds", "processor", "scoring, rows/s", "peak, MiB", "differences"], *lines])


if __name__ == "__main__":
    main()
