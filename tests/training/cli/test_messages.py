from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from dubio.training.cli.main import main
from dubio.training.cli.messages import explain, one_line
from dubio.training.errors import DataWarning

ROOT = Path(__file__).resolve().parents[3]
CONFIG = "digits_mlp"


def fails(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("dubio-train: error: ")


# Through the parser itself: its wording may change with its version, and these would then tell.
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--trainer.max_epohcs", "3"], "there is no setting `trainer.max_epohcs`; did you mean `trainer.max_epochs`?"),
        (["--calibration.alhpa", "0.1"], "there is no setting `calibration.alhpa`; did you mean `calibration.alpha`?"),
        (["--modle.x", "3"], "there is no setting `modle.x`; did you mean `model`?"),
        (["--data.trian", "0.5"], "`data`: dubio.training.Digits has no option `trian`; did you mean `train`?"),
        (["--data", "Digitz"], "`data`: there is no class `Digitz`; did you mean `dubio.training.Digits`?"),
        (
            ["--model.network.widht", "3"],
            "`model.init_args.network`: dubio.models.MLP has no option `widht`; did you mean `widths`?",
        ),
        (
            ["--model.network.class_path", "dubio.models.MPL"],
            "`model.init_args.network`: there is no class `dubio.models.MPL`; did you mean `dubio.models.MLP`?",
        ),
        (
            ["--model.network.class_path", "nowhere.Net"],
            "`model.init_args.network`: there is no class `nowhere.Net`; write its import path, such as `my_nets.Net`.",
        ),
        (
            ["--model.network", "Foo"],
            "`model.init_args.network`: there is no class `Foo`; write its import path, such as `my_nets.Net`.",
        ),
        (
            ["--model.optimizer.lrr", "1"],
            "`model.init_args.optimizer`: torch.optim.AdamW has no option `lrr`; did you mean `lr`?",
        ),
        (["--calibration.alpha", "x"], "Expected `calibration.alpha` to be a number, but got `x`."),
        (
            ["--data.root", "x"],
            "`data`: dubio.training.Digits has no option `root`; it has `batch_size`, `calibration`, `duplicates`, "
            "`sampling`, `seed`, `select`, `test`, `train`, `validation`; `--data.help dubio.training.Digits` explains "
            "its options.",
        ),
        (
            ["--model.network.activation", "relu"],
            "`model.init_args.network`: dubio.models.MLP has no option `activation`; it has `in_features`, "
            "`num_classes`, `rates`, `widths`; `--model.network.help dubio.models.MLP` explains its options.",
        ),
        (
            ["--data", "Table"],
            "`data`: dubio.training.Table needs `path`, `target`; `--data.help dubio.training.Table` explains its "
            "options.",
        ),
        (
            ["--trainer.callbacks", "[EarlyStoping]"],
            "`trainer.callbacks`: there is no class `EarlyStoping`; did you mean "
            "`pytorch_lightning.callbacks.EarlyStopping`?",
        ),
        (["--nonsense", "3"], "there is no setting `nonsense`; see `--help`."),
    ],
)
def test_a_slip_on_the_command_line_is_told_with_what_was_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
):
    assert fails(capsys, "fit", "--config", CONFIG, *arguments) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer: {max_epohcs: 3}", "there is no setting `trainer.max_epohcs`; did you mean `trainer.max_epochs`?"),
        ("trianer: {max_epochs: 3}", "there is no setting `trianer.max_epochs`; did you mean `trainer.max_epochs`?"),
        (
            "model: {init_args: {network: {init_args: {rate: [0.1]}}}}",
            "`model.init_args.network`: dubio.models.MLP has no option `rate`; did you mean `rates`?",
        ),
    ],
)
def test_a_slip_in_a_file_is_told_with_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
):
    (tmp_path / "slip.yaml").write_text(text)
    assert fails(capsys, "fit", "--config", CONFIG, "--config", str(tmp_path / "slip.yaml")) == told


def test_options_before_their_class_are_told_so(capsys: pytest.CaptureFixture[str]):
    told = "Expected the class of `data` before its options, but got none; give `--config`, or `--data CLASS`, before "
    assert fails(capsys, "fit", "--data.seed", "1", "--config", CONFIG) == f"{told}them."


@pytest.mark.parametrize(("where", "path"), [("data", "dubio.training.Digits"), ("model.network", "dubio.models.MLP")])
def test_the_help_that_a_message_names_is_there(where: str, path: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", CONFIG, f"--{where}.help", path])
    assert ended.value.code == 0
    assert f"--{where.rpartition('.')[2]}." in capsys.readouterr().out


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]):
    assert fails(capsys, "fti") == "there is no command `fti`; did you mean `fit`?"
    assert fails(capsys, "compaer") == "there is no command `compaer`; did you mean `compare`?"
    assert "`compare` as the first argument" in fails(capsys, "--config", CONFIG, "compare")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("models.MLP", "model: {init_args: {network: {class_path: models.MLP}}}"),
        ("training.Digits", "data: {class_path: training.Digits}"),
    ],
)
def test_a_class_path_of_before_is_told_with_the_one_of_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, text: str
):
    # Not in the repository, where the folders are importable by their bare names.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if Path(each or ".").resolve() != ROOT])
    (tmp_path / "old.yaml").write_text(text)
    said = fails(capsys, "fit", "--config", "digits_mlp", "--config", "old.yaml")
    assert said.endswith(f"there is no class `{name}`; did you mean `dubio.{name}`?")


def test_a_module_that_lacks_what_it_imports_is_told_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "needy_nets.py").write_text("import absent_library")
    monkeypatch.syspath_prepend(tmp_path)
    said = fails(capsys, "fit", "--config", "digits_mlp", "--model.network.class_path", "needy_nets.Net")
    assert "No module named 'absent_library'" in said
    assert "did you mean" not in said


def test_a_message_of_our_own_stays_as_it_is():
    message = "Expected `alpha` to be a number in (0, 1), but got 2."
    assert explain(ValueError(message), []) == message


# As jsonargparse 4.53 words them.
WRONG_RATES = """Does not validate against any of the Union subtypes
Subtypes: [<class 'dubio.training.classifier.Classifier'>, <class 'NoneType'>]
Errors:
  - Expected `rates` to have one rate for each of 3 layers, but got [0.5].
  - Expected a <class 'NoneType'>
Given value type: <class 'jsonargparse._namespace.Namespace'>
Given value: Namespace(class_path='dubio.training.Classifier', init_args=Namespace())"""

WRONG_NUMBER = """Parser key "trainer.max_epochs":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'int'>, <class 'NoneType'>]
  Errors:
    - Expected a <class 'int'>
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: two"""


def test_only_the_fact_is_left():
    assert one_line(ValueError(WRONG_RATES)) == "Expected `rates` to have one rate for each of 3 layers, but got [0.5]."


def test_key_and_value_stay():
    expected = 'Parser key "trainer.max_epochs": Expected a `int` Given value: two'
    assert one_line(ValueError(WRONG_NUMBER)) == expected


def test_an_error_of_our_own_is_told_as_it_is():
    message = "Expected `alpha` to be a number in (0, 1), but got 2."
    assert one_line(ValueError(message)) == message


def test_an_error_without_a_message_is_named():
    assert one_line(KeyError()) == "KeyError"
    assert one_line(TimeoutError("")) == "TimeoutError"


def test_a_warning_about_data_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    main(["configs"])
    told = warnings.formatwarning("pets: 3 files are not used: 3 .txt.", DataWarning, "data.py", 7)
    assert told == "dubio-train: warning: pets: 3 files are not used: 3 .txt.\n"
    assert warnings.formatwarning("slow", UserWarning, "other.py", 7).startswith("other.py:7: UserWarning: slow\n")
