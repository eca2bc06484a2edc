"""The command as it is run: a process of its own."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from dubio.serving.cli import main, parse
from dubio.serving.settings import SECTIONS, Settings

ROOT = Path(__file__).parents[2]
SECRET = "not-for-any-log-0123"


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready").status_code == 200
    except httpx.TransportError:  # refused, or reset because it still waited when the port closed
        return False


def test_it_serves_and_ctrl_c_is_a_clean_end(command: Any, checkpoint: Path, numbers_checkpoint: Path) -> None:
    with command.started(f"first={checkpoint}", str(numbers_checkpoint)) as service:
        models = httpx.get(f"{service.url}/v1/models").json()["models"]
        assert [model["name"] for model in models] == ["first", "row"]
        assert service.finish(signal.SIGINT) == 0
        assert service.output == ""


def test_sigterm_lets_the_request_in_flight_finish_and_is_a_clean_end(
    command: Any, gated_checkpoint: Path, gate: Path
) -> None:
    more = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}
    with command.started(str(gated_checkpoint), "--trusted", "gated_networks", **more) as service:
        url = service.url
        gate.touch()
        responses: list[httpx.Response] = []
        body = {"instances": [[1, 2, 3, 4, 5]]}
        asking = threading.Thread(
            target=lambda: responses.append(httpx.post(f"{url}/v1/predict", json=body, timeout=60))
        )
        asking.start()
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        while answers(url):  # it takes no new connections ...
            time.sleep(0.02)
        assert service.process.poll() is None  # ... but is not gone
        gate.unlink()
        asking.join()
        assert responses[0].status_code == 200
        assert service.finish() == 0


def test_a_port_in_use_is_one_line_and_1(command: Any, checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = command.refused(str(checkpoint), "--port", str(port))
    assert code == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in line


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


TORCH = pytest.mark.slow  # a process each that imports it


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "hostile",
        pytest.param("folder", marks=TORCH),
        pytest.param("not calibrated", marks=TORCH),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_one_line_and_2(
    command: Any, kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.ckpt"
    if kind == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:5000])
    elif kind == "hostile":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "folder":
        path.mkdir()
    elif kind == "not calibrated":
        torch.save({"state_dict": {}}, path)
    code, line = command.refused(f"bad={path}", "--port", "0")
    assert code == 2
    assert str(path) in line
    assert not (ROOT / "exploded").exists()


@pytest.mark.parametrize(
    ("arguments", "more", "complaint"),
    [
        ((), {}, "name at least one checkpoint"),
        pytest.param(("a=x.ckpt", "a=y.ckpt", "--port", "0"), {}, "'a' names both", marks=TORCH),
        pytest.param(
            ("a=x.ckpt", "--port", "0", "--device", "gpu"),
            {},
            "Expected `device` to be one that torch can use",
            marks=TORCH,
        ),
        pytest.param(("a=x.ckpt", "--port", "0", "--api-keys-file", "none"), {}, "none: No such file", marks=TORCH),
        pytest.param(("a=x.ckpt", "--port", "0"), {"DUBIO_API_KEYS": SECRET}, "DUBIO_API_KEYS, entry 1", marks=TORCH),
        pytest.param(
            ("--port", "0", "--model-repository", "nowhere"),
            {},
            "Expected `model_repository` to be a directory",
            marks=TORCH,
        ),
        pytest.param(
            ("--port", "0", "--model-repository", "docs"), {}, "Expected <name>/<version>/model.ckpt", marks=TORCH
        ),
    ],
)
def test_what_cannot_be_served_is_one_line_and_2(
    command: Any, arguments: tuple, more: dict, complaint: str, tmp_path: Path
) -> None:
    for name in ("x", "y"):  # of what is no checkpoint at all nothing else is told
        torch.save({}, tmp_path / f"{name}.ckpt")
    code, line = command.refused(*(each.replace("=", f"={tmp_path}/") for each in arguments), **more)
    assert code == 2
    assert complaint in line
    assert SECRET not in line


@pytest.mark.parametrize(
    ("arguments", "more", "complaint"),
    [
        (("a=x.ckpt", "--port", "70000"), {}, "setting port: "),
        (("a=x.ckpt",), {"DUBIO_MAX_ROWS": "many"}, "setting max_rows: "),
        (("a=x.ckpt",), {"DUBIO_API_KEYS": f"infer:{SECRET}", "DUBIO_DRAIN_SECONDS": "99"}, "setting drain_seconds"),
        (("a=x.ckpt", "--cors-origin", "app.example.org"), {}, "is no origin"),
        (("a=x.ckpt", "--workers", "0"), {}, "setting workers: "),
        (("--workers", "2", "--model-repository", ".", "--model-control", "explicit"), {}, "setting workers: "),
    ],
)
def test_a_wrong_setting_is_one_line_and_2(
    arguments: tuple,
    more: dict,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    assert main(arguments) == 2
    written = capsys.readouterr()
    [line] = written.err.splitlines()
    assert line.startswith("dubio-serve: ")
    assert complaint in line
    assert SECRET not in line + written.out


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "no such file"), (b"junk" * 99, "not a checkpoint that torch")]
)
def test_what_is_no_checkpoint_is_told_without_torch(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "model.ckpt"
    if content is not None:
        path.write_bytes(content)
    script = f"""if True:
        import sys
        from dubio.serving.cli import main
        assert main(["a=" + {str(path)!r}, "--port", "0"]) == 2
        assert "torch" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"dubio-serve: {path}: " in done.stderr
    assert complaint in done.stderr


def test_help_teaches(command: Any) -> None:
    done = command.run("--help", COLUMNS="400")
    assert done.returncode == 0
    for name, field in Settings.model_fields.items():
        if name not in ("models", "api_keys", "database_url"):
            assert f"--{name.replace('_', '-')} " in done.stdout
        assert name in ("api_keys", "database_url") or " ".join(field.description.split()) in done.stdout
    for taught in [
        *(f"\n{title}:\n" for title in SECTIONS.values()),
        "second one ends the service at once",
        "dubio-serve runs/digits_mlp/model.ckpt",
        "DUBIO_MODELS",
        "exit codes",
        "/docs",
    ]:
        assert taught in done.stdout


def test_mistakes_in_settings_and_help_do_without_torch() -> None:
    """It takes seconds to import, for which nobody waits who mistyped an option."""
    script = """if True:
        import sys
        from dubio.serving.cli import main, parse
        parse(["model.ckpt", "--workers", "2"])
        assert main([]) == main(["model.ckpt", "--port", "70000"]) == 2
        try:
            parse(["--help"])
        finally:
            assert "torch" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 2), done.stderr


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["runs/x.ckpt"], {"models": ("runs/x.ckpt",)}),
        (["digits=a.ckpt", "fashion=b.ckpt", "--port", "9000"], {"models": ("digits=a.ckpt", "fashion=b.ckpt")}),
        (["--workers=2", "a=lr,5/model.ckpt"], {"models": ("a=lr,5/model.ckpt",), "workers": 2}),
        (["--model-repository", "models", "--model-control", "poll"], {"model_repository": Path("models")}),
        (["--trusted", "acme", "--trusted", "net"], {"trusted": ("acme", "net")}),
        (["--allowed-host", "a.example", "--allowed-hosts", "*"], {"allowed_hosts": ("a.example", "*")}),
        (["--cors-origin", "http://a", "--cors-origins", "*"], {"cors_origins": ("http://a", "*")}),
        (["--access-log", "--tracing", "--strategy", "chain"], {"access_log": True, "tracing": True}),
        (["--torch-threads", "3", "--batch-delay-seconds", ".5"], {"torch_threads": 3, "batch_delay_seconds": 0.5}),
        ([], {"port": 8000, "models": (), "access_log": False}),
    ],
)
def test_each_setting_is_an_option(arguments: list[str], settings: dict) -> None:
    parsed = parse(arguments)
    assert {name: getattr(parsed, name) for name in settings} == settings


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBIO_PORT", "9001")
    monkeypatch.setenv("DUBIO_MODELS", "a=x.ckpt,y.ckpt")
    monkeypatch.setenv("DUBIO_MAX_ROWS", "7")
    given, silent = parse(["z.ckpt", "--port", "9000"]), parse([])
    assert (given.models, given.port, given.max_rows) == (("z.ckpt",), 9000, 7)
    assert (silent.models, silent.port, silent.max_rows) == (("a=x.ckpt", "y.ckpt"), 9001, 7)


@pytest.mark.parametrize(
    "argument", ["--prot=1", "--port=many", "--port", "--model-control=sometimes", f"--api-keys=infer:{SECRET}"]
)
def test_a_wrong_argument_is_one_line_without_the_usage(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model.ckpt", argument]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert argument.partition("=")[0] in line
    assert "--help" in line


def test_a_variable_that_is_no_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DUBIO_PROT", "1")
    assert main(["a=none.ckpt", "--port", "0"]) == 2  # as there is no such file
    assert "DUBIO_PROT is no setting and is ignored; did you mean `DUBIO_PORT`?" in caplog.text
