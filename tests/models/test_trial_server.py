"""What a checkpoint may take in its trial, and what is said where it takes more; in real processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dubio.models import ResNet, load
from dubio.models.checkpoint.schema import KEY
from dubio.models.checkpoint.state_dict import sha256
from dubio.models.errors import NotEnoughMemory, UnreadableCheckpoint
from dubio.models.memory import exhausted
from dubio.models.trial import Limits
from tests.models.processes import gone

Edit = Callable[[Callable[[dict[str, Any]], object]], Path]

LITTLE = Limits(seconds=1, size=2**28)
# A busy machine may not give a process the processor time that it is allowed.
TIME = r"(more processor time than the 1 s|more than 5 s, 5 times the 1) that `load_seconds` allows.*DUBIO_LOAD_SECONDS"


@pytest.fixture
def large(edit: Edit) -> Path:
    """A file of some kilobytes, within all bounds of its parts: 4096 members of images of 1448 x 1448 pixels."""

    def change(content: dict[str, Any]) -> None:
        arguments = {"in_channels": 1, "widths": [8], "blocks": 1, "num_classes": 3}
        weights = ResNet(**arguments).state_dict()
        content["state_dict"] = {f"network.{name}": tensor for name, tensor in weights.items()}
        content[KEY]["network"] = {"class_path": "dubio.models.ResNet", "init_args": arguments}
        content[KEY]["provenance"]["weights_sha256"] = sha256(weights)
        content[KEY]["input"]["shape"] = [1, 1448, 1448]
        content[KEY]["committee"]["num_samples"] = 4096
        content[KEY]["auto"]["committee"] = 4096

    return edit(change)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time\ntime.sleep(600)", r"more than 5 s, 5 times the 1 that `load_seconds` allows"),
        ("while True:\n    pass", TIME),
        (
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass",
            TIME,
        ),
        ("held = [bytearray(2**20) for _ in range(2**14)]", r"more memory than the 268435456 bytes that `load_bytes`"),
        ("import torch\nheld = torch.ones(2**32)", r"more memory than the 268435456 bytes that `load_bytes`"),
        ("import ctypes\nctypes.string_at(0)", r"crashed the process that tried it \(SIGSEGV\)"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGBUS)", r"crashed the process that tried it \(SIGBUS\)"),
        ("import os\nos.abort()", r"crashed the process that tried it \(SIGABRT\)"),
        ("import os\nos._exit(0)", r"crashed the process that tried it \(it ended without an answer\)"),
        ("raise SystemExit", r"its trial load failed with SystemExit"),
        ("Own = 3", r"which is not a torch.nn.Module class"),
    ],
    ids=["sleep", "spin", "deaf", "allocate", "tensor", "segfault", "bus", "abort", "exit", "leave", "other"],
)
def test_what_trusted_code_does_ends_the_trial_alone(trusting: Callable[[str], tuple[Path, str]], code: str, said: str):
    path, module = trusting(code)
    with pytest.raises(UnreadableCheckpoint, match=said) as caught:
        load(path, trusted=[module], trial=LITTLE)
    assert "\n" not in str(caught.value)
    assert module not in sys.modules


def test_what_trusted_code_starts_ends_with_the_trial(trusting: Callable[[str], tuple[Path, str]], tmp_path: Path):
    note = tmp_path / "pid"
    path, module = trusting(
        f"""
        import subprocess, time
        started = subprocess.Popen(["sleep", "600"])
        open({str(note)!r}, "w").write(str(started.pid))
        time.sleep(600)
        """
    )
    with pytest.raises(UnreadableCheckpoint, match="load_seconds"):
        load(path, trusted=[module], trial=LITTLE)
    gone(int(note.read_text()))


def test_a_small_file_that_would_compute_for_hours_is_ended(large: Path):
    assert large.stat().st_size < 2**19
    with pytest.raises(UnreadableCheckpoint, match=TIME):
        load(large, trial=Limits(seconds=1))


def test_a_small_file_that_would_take_gigabytes_is_ended(large: Path):
    with pytest.raises(
        UnreadableCheckpoint, match=r"more memory than the 67108864 bytes that `load_bytes` allows.*DUBIO_LOAD_BYTES"
    ):
        load(large, trial=Limits(size=2**26))


def test_small_pieces_of_memory_can_be_had_at_the_limit(trusting: Callable[[str], tuple[Path, str]]):
    # oneDNN crashes where it gets no memory for what describes a convolution.
    path, module = trusting(
        """
        import os
        import torch

        held, size = [], 2**24
        while size >= 2**17:
            try:
                held.append(torch.empty(size, dtype=torch.uint8))
            except RuntimeError:
                size //= 2
        try:
            small = [torch.empty(2**14, dtype=torch.uint8) for _ in range(512)]
        except RuntimeError:
            os.abort()
        torch.empty(2**20)
        """
    )
    with pytest.raises(UnreadableCheckpoint, match="more memory than the 268435456 bytes that `load_bytes`"):
        load(path, trusted=[module], trial=LITTLE)


def test_a_trial_that_the_system_kills_ran_out_of_memory(trusting: Callable[[str], tuple[Path, str]]):
    path, module = trusting("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotEnoughMemory, match="was killed, as the system does where memory runs out") as caught:
        load(path, trusted=[module], trial=LITTLE)
    assert exhausted(caught.value) is not None  # so that it is tried again later
