"""Checkpoints spoiled at random: in the archive, in the description of its content, and in what the content says."""

from __future__ import annotations

import io
import os
import pickletools
import random
import struct
import threading
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from dubio.models import Predictor, load
from dubio.models.checkpoint.schema import KEY
from dubio.models.errors import UnreadableCheckpoint
from dubio.models.trial import Limits, tried

NUMBERS = (0, 1, -1, 2, 255, 4096, 2**20, 2**31 - 1, 2**31, 2**53, 2**62, -(2**62), 10**30)
OTHERS = (None, True, "", "x" * 300, "..", "os.system", [], {}, [[]], {"a": 1}, (), 0.0, -1e308, 1e-320, float("nan"))
MAX_GROWTH = 256 * 2**20  # bytes that a refused file may take


def _archive(chance: random.Random, whole: bytes) -> bytes:
    """Spoils what is around the entries, or the entries themselves."""
    signatures = [at for at in range(len(whole) - 4) if whole[at : at + 2] == b"PK" and whole[at + 2] < 9]
    data = bytearray(whole)
    kind = chance.randrange(6)
    if kind == 0:
        for _ in range(chance.choice([1, 3])):
            at = chance.choice(signatures) + chance.randrange(46)
            data[min(at, len(data) - 1)] = chance.choice([0, 1, 255, chance.randrange(256)])
    elif kind == 1:
        at = chance.choice(signatures) + chance.randrange(42)
        data[at : at + 4] = struct.pack("<I", chance.choice([0, 1, 2**16, 2**31, 2**32 - 1]))
    elif kind == 2:
        data = data[: chance.randrange(len(data))]
    elif kind == 3:
        at = chance.choice([0, len(data), *signatures])
        data[at:at] = chance.choice([b"\n", bytes(64), whole, whole[-200:]])
    elif kind == 4:
        first, second = sorted(chance.sample(signatures, 2))
        data = bytearray(chance.choice([data[:first] + data[second:], data[:second] + data[first:]]))
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _entries(whole: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def _description(chance: random.Random, whole: bytes) -> bytes:
    """Spoils instructions, in an archive that is whole."""
    entries = dict(_entries(whole))
    name = next(name for name in entries if name.endswith("/data.pkl"))
    pickled = entries[name]
    starts = [position for _, _, position in pickletools.genops(pickled)] + [len(pickled)]
    steps = [pickled[start:end] for start, end in pairwise(starts)]
    for _ in range(chance.choice([1, 1, 2, 8])):
        at, other = chance.randrange(1, len(steps)), chance.randrange(1, len(steps))
        kind = chance.randrange(6)
        if kind == 0:
            del steps[at]
        elif kind == 1:
            steps.insert(at, steps[other])
        elif kind == 2:
            steps[at], steps[other] = steps[other], steps[at]
        elif kind == 3:
            steps[at] = chance.choice(
                [b"N", b"}", b"]", b")", b"(", b"K\xff", b"J\xff\xff\xff\x7f", b"0", b"R", b"b", b"Q"]
            )
        elif kind == 4:
            steps[at:at] = steps[other : other + chance.randrange(20)] * chance.choice([1, 50])
        else:
            step = bytearray(steps[at])
            step[chance.randrange(len(step))] = chance.randrange(256)
            steps[at] = bytes(step)
    return _zipped({**entries, name: b"".join(steps)})


def _zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def _spec(chance: random.Random, whole: bytes) -> bytes:
    """Spoils fields of the content, in a file that torch wrote."""
    content = torch.load(io.BytesIO(whole), weights_only=True)
    for _ in range(chance.choice([1, 1, 2])):
        held: Any = content[KEY] if chance.random() < 0.8 else content
        while isinstance(held, dict | list) and held:
            keys = list(held) if isinstance(held, dict) else list(range(len(held)))
            key = chance.choice(keys)
            if isinstance(held[key], dict | list) and held[key] and chance.random() < 0.85:
                held = held[key]
                continue
            held[key] = _other(chance, held[key])
            if isinstance(held, dict) and chance.random() < 0.1:
                del held[key]
            break
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _other(chance: random.Random, value: Any) -> Any:
    if isinstance(value, Tensor) and chance.random() < 0.8:
        kinds: list[Callable[[Tensor], Tensor]] = [
            *(
                lambda x: x[:1],
                lambda x: x.unsqueeze(0),
                lambda x: x.double(),
                lambda x: x * float("nan"),
                lambda x: -x,
            ),
            *(lambda x: x.new_zeros(()).expand(2**20, 2**20), lambda x: torch.cat([x, x]), lambda x: x.flatten()[:0]),
        ]
        return chance.choice(kinds)(value) if value.ndim else value.expand(2**40)
    if isinstance(value, list) and value and chance.random() < 0.5:
        return chance.choice([value * 2, value[:-1], [*value, chance.choice(NUMBERS)], value * 300])
    return chance.choice([*NUMBERS, *OTHERS])


@pytest.mark.parametrize("count", [34, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spoil", [_archive, _description, _spec], ids=lambda spoil: spoil.__name__.strip("_"))
@pytest.mark.filterwarnings("ignore")  # of numbers that overflow
def test_a_spoiled_file_loads_or_is_refused_in_one_line_and_leaves_nothing(
    spoil: Callable[[random.Random, bytes], bytes],
    count: int,
    saved: Path,
    loaded: Predictor,
    rows: Tensor,
    tmp_path: Path,
):
    whole, path = saved.read_bytes(), tmp_path / "model.ckpt"
    expected = loaded.predict(rows[:2])
    process = psutil.Process()
    open_files, threads = process.num_fds(), threading.active_count()
    reasons: dict[int, str] = {}
    for seed in range(count):
        chance = random.Random(f"{spoil.__name__} {seed}")
        path.write_bytes(spoil(chance, whole))
        before = process.memory_info().rss
        try:
            spoiled = load(path, strategy="chain")
        except UnreadableCheckpoint as error:
            reasons[seed] = str(error)
        else:
            given = spoiled.predict(rows[:2])
            assert np.isfinite(given.probabilities).all(), f"seed {seed}"
            if spoil is _archive:
                np.testing.assert_array_equal(given.probabilities, expected.probabilities)
                np.testing.assert_allclose(given.mc_mean, expected.mc_mean, atol=1e-6)
        assert process.memory_info().rss - before < MAX_GROWTH, f"seed {seed}"
    assert len(reasons) > count // 2
    assert {seed for seed, reason in reasons.items() if not reason.isprintable() or len(reason) > 2000} == set()
    assert os.listdir(tmp_path) == ["model.ckpt"]
    # Fewer if what tests before left is collected meanwhile.
    assert process.num_fds() <= open_files
    assert threading.active_count() <= threads


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [_archive, _description, _spec], ids=lambda spoil: spoil.__name__.strip("_"))
def test_no_spoiled_file_outlives_the_limits_of_its_trial_or_crashes_it(
    spoil: Callable[[random.Random, bytes], bytes], saved: Path, tmp_path: Path
):
    whole, path, reasons = saved.read_bytes(), tmp_path / "model.ckpt", dict[int, str]()
    for seed in range(100):
        path.write_bytes(spoil(random.Random(f"{spoil.__name__} {seed}"), whole))
        try:
            with tried(path, Limits(seconds=30, size=2**30), strategy="chain"):
                pass
        except UnreadableCheckpoint as error:
            reasons[seed] = str(error)
    assert {seed for seed, reason in reasons.items() if "its trial load" in reason} == set()
    assert len(reasons) > 50
