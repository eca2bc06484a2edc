from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml

from dubio.training.cli import configs
from dubio.training.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, far from the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    """The settings that a command line amounts to."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    return line.removeprefix("dubio-train: error: ")


def test_every_configuration_of_the_repository_has_a_name():
    assert configs.names() == sorted(str(path.relative_to(ROOT / "configs"))[: -len(".yaml")] for path in FILES)
    assert {"digits_mlp", "recipes/max_norm"} <= set(configs.names())


def test_the_list_tells_network_data_and_what_it_is_about(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "250")
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in lines if line.strip().startswith("digits_mlp")]
    assert row[:5] == ["digits_mlp", "MLP", "Digits", "Handwritten", "digits"]
    for name in configs.names():
        assert sum(line.split()[:1] == [name] for line in lines) == 1


def test_a_narrow_terminal_shows_names_and_what_they_are_about(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in lines if line.strip().startswith("digits_mlp ")]
    assert row[:3] == ["digits_mlp", "Handwritten", "digits"]
    assert len(lines) < 3 * len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_first_line_of_a_configuration_is_a_sentence(path: Path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


def test_a_configuration_is_written_out_as_it_is_and_can_be_trained_with(folder: Path, capsys):
    main(["configs", "digits_mlp"])
    assert (folder / "digits_mlp.yaml").read_text() == (ROOT / "configs" / "digits_mlp.yaml").read_text()
    said = capsys.readouterr().out.strip()
    assert said == "next: dubio-train fit --config digits_mlp.yaml"
    assert printed(capsys, *said.split()[2:])["name"] == "digits_mlp"


def test_the_file_that_is_written_may_be_chosen_and_is_never_replaced(folder: Path, capsys):
    main(["configs", "recipes/max_norm", "--output", "mine.yaml"])
    written = (folder / "mine.yaml").read_text()
    assert written == (ROOT / "configs" / "recipes" / "max_norm.yaml").read_text()
    assert fails(capsys, "configs", "digits_mlp", "--output", "mine.yaml") == (
        "Expected `--output` to be a file that is not there yet, but mine.yaml is; give another one."
    )
    assert (folder / "mine.yaml").read_text() == written


def test_an_output_without_a_name_and_a_name_that_is_none_are_mistakes(folder: Path, capsys):
    assert "Expected the name of a configuration" in fails(capsys, "configs", "--output", "a.yaml")
    assert fails(capsys, "configs", "digits_mpl").endswith("got 'digits_mpl'; did you mean `digits_mlp`?")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--config", "digits_mlp"],
        ["validate", "--config=digits_mlp"],
        ["test", "-c", "digits_mlp"],
        ["predict", "--config", "digits_mlp"],
        ["calibrate", "--config", "digits_mlp"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_takes_a_configuration_by_its_name(capsys, arguments: list[str]):
    command, by_name = arguments[0], printed(capsys, *arguments)
    assert by_name == printed(capsys, command, "--config", str(ROOT / "configs" / "digits_mlp.yaml"))


def test_names_are_put_together_like_files(capsys):
    settings = printed(capsys, "fit", "--config", "digits_mlp", "--config", "recipes/max_norm")
    assert settings["name"] == "digits_mlp"
    assert settings["model"]["init_args"]["network"]["class_path"] == "dubio.models.MLP"
    assert settings["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.SGD"
    (callback,) = settings["trainer"]["callbacks"]
    assert callback["class_path"] == "dubio.training.MaxNorm"


@pytest.mark.parametrize("name", ["digits_mlp", "digits_mlp.yaml"])
def test_a_file_of_that_name_is_preferred_and_a_folder_is_not(folder: Path, capsys, name: str):
    (folder / "digits_mlp").mkdir()
    assert printed(capsys, "fit", "--config", "digits_mlp")["name"] == "digits_mlp"
    (folder / "digits_mlp").rmdir()
    (folder / name).write_text("name: mine")
    assert printed(capsys, "fit", "--config", "digits_mlp")["name"] == "mine"


def test_settings_as_text_are_taken_as_before(capsys):
    settings = printed(capsys, "fit", "--config", "digits_mlp", "--config", "trainer: {max_epochs: 7}")
    assert settings["trainer"]["max_epochs"] == 7


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digit_mlp", "did you mean `digits_mlp`?"),
        ("configs/digits_mpl.yaml", "did you mean `digits_mlp`?"),
        ("zebra", "`dubio-train configs` lists the names."),
    ],
)
@pytest.mark.parametrize("command", ["fit", "calibrate", "compare"])
def test_a_name_that_is_none_is_told_with_the_nearest(capsys, command: str, name: str, hint: str):
    assert fails(capsys, command, "--config", name) == (
        f"Expected a file, or the name of a configuration that Dubio has, but got {name!r}; {hint}"
    )


class Asked(ThreadingHTTPServer):
    """A web server that counts who asks it for a configuration."""

    count = 0

    class Handler(BaseHTTPRequestHandler):
        """Gives one to everybody."""

        def do_GET(self) -> None:
            """Answer, and count."""
            Asked.count += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write((ROOT / "configs" / "digits_mlp.yaml").read_bytes())

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:PORT/a.yaml", "local://FOLDER/a.yaml", "simplecache::FOLDER/a.yaml"]
)
def test_a_configuration_is_never_fetched(capsys: pytest.CaptureFixture[str], folder: Path, address: str) -> None:
    """What it names is run, so whoever can answer for that address could run code."""
    (folder / "a.yaml").write_text((ROOT / "configs" / "digits_mlp.yaml").read_text())
    with Asked(("127.0.0.1", 0), Asked.Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = address.replace("PORT", str(server.server_port)).replace("FOLDER", str(folder))
        said = fails(capsys, "fit", "--config", address)
        (folder / "b.yaml").write_text(f"data: {address}\n")
        fails(capsys, "fit", "--config", "b.yaml")
        fails(capsys, "fit", "--config", "digits_mlp", "--trainer", address)
        server.shutdown()
        thread.join()
    assert f"Expected `--config` to be a file on this machine, but got '{address}'" in said
    assert Asked.count == 0


@pytest.mark.parametrize("command", ["fit", "calibrate", "test"])
def test_a_checkpoint_is_no_configuration(capsys: pytest.CaptureFixture[str], folder: Path, command: str) -> None:
    torch.save({"state_dict": {}}, "model.ckpt")
    line = fails(capsys, command, "--config", "model.ckpt")
    assert "`--config` to be a configuration in YAML, but model.ckpt is a checkpoint" in line
    assert "give that as `--ckpt`" in line
    Path("utf16.yaml").write_text("name: a", encoding="utf-16")
    line = fails(capsys, command, "--config", "utf16.yaml")
    assert "a text in UTF-8, but byte 0 of utf16.yaml is of none; save it as UTF-8" in line
