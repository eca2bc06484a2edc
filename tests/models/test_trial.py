"""Trials in real processes: what a checkpoint may take there, and what is said where it takes more."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from torch import Tensor

from dubio.models import Predictor, ResNet, load, trial_client
from dubio.models.checkpoint.schema import KEY
from dubio.models.checkpoint.state_dict import sha256
from dubio.models.errors import ModelError, NotEnoughMemory, TrialUnavailable, UnreadableCheckpoint
from dubio.models.memory import exhausted
from dubio.models.trial import Limits, tried

Edit = Callable[[Callable[[dict[str, Any]], object]], Path]

LITTLE = Limits(seconds=1, size=2**28)
# A busy machine may not give a process the processor time that it is allowed.
TIME = r"(more processor time than the 1 s|more than 5 s, 5 times the 1) that `load_seconds` allows.*DUBIO_LOAD_SECONDS"


@pytest.fixture
def trusting(edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Path, str]]:
    """A checkpoint whose network is a class of a module that runs some code when imported, and the module's name."""

    def write(code: str) -> tuple[Path, str]:
        folder = tmp_path / "own"
        folder.mkdir()
        name = f"own_{tmp_path.name.replace('-', '_')}"
        text = f"from dubio.models import MLP\n\n\nclass Own(MLP):\n    pass\n\n\n{textwrap.dedent(code)}\n"
        (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        return edit(lambda content: content[KEY]["network"].update(class_path=f"{name}.Own")), name

    return write


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


def test_a_good_file_passes_and_loads_as_without_a_trial(saved: Path, loaded: Predictor, rows: Tensor):
    predictor = load(saved, strategy="chain", trial=Limits())
    np.testing.assert_array_equal(predictor.predict(rows).mc_mean, loaded.predict(rows).mc_mean)
    with tried(saved, Limits()) as outcome:
        assert outcome.answer == {"outcome": "passed"}
        assert 0 < outcome.seconds < Limits().seconds
        assert 2**20 < outcome.peak < Limits().size


def _servers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if trial_client._SERVER in " ".join(each.cmdline())]


def test_one_process_forks_all_trials(saved: Path):
    with tried(saved, Limits(), "read"):
        (server,) = _servers()
    open_files = psutil.Process().num_fds()
    for _ in range(3):
        with tried(saved, Limits(), "read"):
            assert _servers() == [server]
            assert server.children() == []
    assert server.num_threads() == 1
    assert psutil.Process().num_fds() == open_files


def test_what_is_refused_is_refused_as_without_a_trial(model_file: Path, edit: Edit):
    edit(lambda content: content[KEY]["input"].update(shape=[1, 4, 5]))
    with pytest.raises(UnreadableCheckpoint) as alone:
        load(model_file, trial=False)
    with pytest.raises(UnreadableCheckpoint) as after_trial:
        load(model_file, trial=Limits())
    assert str(after_trial.value) == str(alone.value)
    model_file.write_bytes(b"PK nonsense")
    with pytest.raises(UnreadableCheckpoint, match="is not a checkpoint"):
        load(model_file, trial=Limits())
    with pytest.raises(UnreadableCheckpoint, match="no such file"):
        load(model_file.with_name("other.ckpt"), trial=Limits())


def test_a_small_file_that_would_compute_for_hours_is_ended(large: Path):
    assert large.stat().st_size < 2**19
    with pytest.raises(UnreadableCheckpoint, match=TIME):
        load(large, trial=Limits(seconds=1))


def test_a_small_file_that_would_take_gigabytes_is_ended(large: Path):
    with pytest.raises(
        UnreadableCheckpoint, match=r"more memory than the 67108864 bytes that `load_bytes` allows.*DUBIO_LOAD_BYTES"
    ):
        load(large, trial=Limits(size=2**26))


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


def test_a_trial_that_the_system_kills_ran_out_of_memory(trusting: Callable[[str], tuple[Path, str]]):
    path, module = trusting("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotEnoughMemory, match="was killed, as the system does where memory runs out") as caught:
        load(path, trusted=[module], trial=LITTLE)
    assert exhausted(caught.value) is not None  # so that it is tried again later


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
    _gone(int(note.read_text()))


def test_a_trial_ends_with_the_program_that_wanted_it(trusting: Callable[[str], tuple[Path, str]], tmp_path: Path):
    note = tmp_path / "pids"
    path, module = trusting(
        f"""
        import os, time
        open({str(note)!r}, "w").write(f"{{os.getpid()}} {{os.getppid()}} ")
        time.sleep(600)
        """
    )
    program = f"from dubio.models import load\nload({str(path)!r}, trusted=[{module!r}])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DUBIO_LOAD_TRIAL": "process"}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        try:
            _wait(lambda: note.exists() and note.read_text().endswith(" "))
        finally:
            process.kill()
    for pid in note.read_text().split():
        _gone(int(pid))


def test_a_file_that_changes_after_its_trial_is_not_loaded(model_file: Path):
    whole = model_file.read_bytes()
    changed = pytest.raises(UnreadableCheckpoint, match="changed between its trial and its load")
    with changed, tried(model_file, Limits(), "read"):
        model_file.unlink()
        model_file.write_bytes(whole)
    with changed, tried(model_file, Limits(), "read"):
        model_file.unlink()


def test_a_network_of_the_script_itself_cannot_be_tried(saved: Path):
    with pytest.raises(TrialUnavailable, match="a class of the script that runs; move it into a module"):
        load(saved, trusted=["__main__"], trial=Limits())


def test_the_environment_sets_the_limits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DUBIO_LOAD_TRIAL", "process")
    assert Limits.of_environment() == Limits(120.0, 4 * 2**30)
    monkeypatch.setenv("DUBIO_LOAD_SECONDS", "7.5")
    monkeypatch.setenv("DUBIO_LOAD_BYTES", "1000000")
    assert Limits.of_environment() == Limits(7.5, 1000000)
    for name, wrong in [
        *(("DUBIO_LOAD_TRIAL", each) for each in ("", "thread")),
        *(("DUBIO_LOAD_SECONDS", each) for each in ("", "0", "-1", "nan", "inf", "a minute")),
        *(("DUBIO_LOAD_BYTES", each) for each in ("", "0", "1.5", "4 GiB")),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, wrong)
            with pytest.raises(ModelError, match=f"Expected {name} to be"):
                Limits.of_environment()


def test_an_interrupted_trial_ends_and_leaves_nothing(trusting: Callable[[str], tuple[Path, str]], tmp_path: Path):
    note = tmp_path / "pid"
    path, module = trusting(
        f"""
        import os, signal, time
        open({str(note)!r}, "w").write(str(os.getpid()))
        os.kill({os.getpid()}, signal.SIGINT)
        time.sleep(600)
        """
    )
    with pytest.raises(KeyboardInterrupt):
        load(path, trusted=[module], trial=Limits(seconds=300))
    _gone(int(note.read_text()))
    _wait(lambda: _servers() == [])  # no zombie either


@pytest.fixture
def no_server() -> Iterator[None]:
    """Without a process that is there already."""
    trial_client.servers.close()
    yield
    trial_client.servers.close()


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(("executable", "why"), [("/nonexistent/python", "No such file"), ("/bin/false", "ended")])
def test_without_a_process_nothing_is_loaded(saved: Path, executable: str, why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(TrialUnavailable, match=rf"{why}.*DUBIO_LOAD_TRIAL=none"):
        load(saved, trial=Limits())
    monkeypatch.setenv("DUBIO_LOAD_TRIAL", "none")
    assert load(saved, strategy="chain").detector is not None


def _wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def _gone(pid: int) -> None:
    """Wait until a process has ended; whether whoever inherited it has reaped it is not our concern."""

    def ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    _wait(ended)
