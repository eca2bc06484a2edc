"""`dubio-serve --grpc-port` in a process of its own: its port, its workers and its end."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tests.serving.rpc.client import OUTPUTS, SERVICE, Client, address, ask


def connects(host: str, port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((host, port)) == 0


def test_calls_that_have_begun_are_finished_and_no_more(
    command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(tmp_path)}
    arguments = (f"row={gated_checkpoint}", "--trusted", "gated_networks", "--strategy", "loop", "--grpc-port", "0")
    with command.started(*arguments, **environment) as service, Client(address(service)) as rpc:
        gate.touch()
        held = rpc.begin("ModelInfer", ask("row", raw=True))
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Stopping")
        host, port = address(service).split(":")
        while connects(host, int(port)):
            time.sleep(0.01)
        # What is sent before its own connection is told of the end is cancelled.
        assert rpc.refused("ServerLive")[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        gate.unlink()
        assert len(held.result().outputs) == OUTPUTS
        assert service.finish() == 0


@pytest.mark.slow
def test_a_path_that_ends_grpcios_server_ends_not_ours(command: Any, numbers_checkpoint: Path) -> None:
    fields = {b":method": b"POST", b":scheme": b"http", b":path": b"/\xff", b":authority": b"x"}
    fields |= {b"content-type": b"application/grpc", b"te": b"trailers"}
    head = b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields.items())
    settings, headers = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), bytes([0, 0, len(head), 1, 4, 0, 0, 0, 1])
    with command.started(str(numbers_checkpoint), "--grpc-port", "0", "--strategy", "loop") as service:
        host, port = address(service).split(":")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers + head)
            service.wait_for("another one takes its place")
        until = time.monotonic() + 30
        while not connects(host, int(port)):
            assert time.monotonic() < until
            time.sleep(0.01)
        with Client(address(service)) as rpc:
            assert len(rpc.call("ModelInfer", ask("row", raw=True)).outputs) == OUTPUTS


@pytest.mark.slow
def test_a_call_that_outlasts_the_grace_period_is_cut_off(
    command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(tmp_path)}
    arguments = (f"row={gated_checkpoint}", "--trusted", "gated_networks", "--strategy", "loop", "--grpc-port", "0")
    with command.started(*arguments, "--grace-seconds", "2", **environment) as service:
        with Client(address(service)) as rpc:
            gate.touch()
            held = rpc.begin("ModelInfer", ask("row", raw=True))
            while not gate.with_suffix(".waiting").exists():
                time.sleep(0.01)
            assert service.finish(signal.SIGTERM) == 1
            with pytest.raises(grpc.RpcError) as refusal:
                held.result()
            assert refusal.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        gate.unlink()


@pytest.mark.slow
def test_several_workers_answer_at_one_port(command: Any, numbers_checkpoint: Path) -> None:
    with command.started(str(numbers_checkpoint), "--grpc-port", "0", "--workers", "2") as service:
        where = address(service)
        for _ in range(8):
            with Client(where) as rpc:
                assert len(rpc.call("ModelInfer", ask("row", raw=True)).outputs) == OUTPUTS
        metrics = httpx.get(f"{service.url}/metrics").text
        route = f"{SERVICE}ModelInfer"
        assert f'dubio_requests_total{{model="row",route="{route}",status="200",version="1"}} 8.0' in metrics
        code, line = command.refused(str(numbers_checkpoint), "--grpc-port", where.rpartition(":")[2], "--port", "0")
        assert code == 1
        assert "for gRPC: Address already in use; choose another --grpc-port." in line
        assert service.finish(signal.SIGTERM) == 0


def test_without_the_library_the_port_is_refused(command: Any, numbers_checkpoint: Path, tmp_path: Path) -> None:
    hide = "import sys; sys.modules['grpc'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    code, line = command.refused(str(numbers_checkpoint), "--grpc-port", "0", PYTHONPATH=str(tmp_path))
    assert code == 2
    assert line == (
        "dubio-serve: setting grpc_port: it needs grpc, which is not there; pip install 'dubio[grpc]', or leave it out."
    )


def test_the_port_of_http_is_not_free(command: Any, numbers_checkpoint: Path) -> None:
    code, line = command.refused(str(numbers_checkpoint), "--port", "9231", "--grpc-port", "9231")
    assert code == 2
    assert "setting grpc_port: it is the port of HTTP, too; gRPC needs one of its own, but got" in line
