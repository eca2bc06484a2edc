from __future__ import annotations

from pathlib import Path

import pytest

from dubio.training.cli.main import main
from dubio.training.cli.messages import nearest, one_line, told

CONFIG = "configs/digits_mlp.yaml"


def fails(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("dubio-train: error: ")


# Through the parser itself: its wording may change with its version, and these would then tell.
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--trainer.max_epohcs", "3"], "`trainer` has no setting `max_epohcs`; did you mean `max_epochs`?"),
        (["--calibration.alhpa", "0.1"], "`calibration` has no setting `alhpa`; did you mean `alpha`?"),
        (["--modle.x", "3"], "there is no setting `modle.x`; did you mean `model`?"),
        (["--data.trian", "0.5"], "`data`: dubio.training.Digits has no option `trian`; did you mean `train`?"),
        (["--data", "Digitz"], "`data`: there is no class `Digitz`; did you mean `dubio.training.Digits`?"),
        (
            ["--model.network.widht", "3"],
            "`model.init_args.network`: dubio.models.MLP has no option `widht`; did you mean `widths`?",
        ),
        (
            ["--model.network.class_path", "models.MPL"],
            "no class `models.MPL`; did you mean `dubio.models.MLP`?",
        ),
        (
            ["--model.optimizer.lrr", "1"],
            "`model.init_args.optimizer`: torch.optim.AdamW has no option `lrr`; did you mean `lr`?",
        ),
        (["--model.network.widths", "3"], "`model.init_args.network.init_args.widths`: expected a list, but got 3."),
        (["--calibration.alpha", "x"], "`calibration.alpha`: expected a number, but got x."),
    ],
)
def test_a_slip_on_the_command_line_is_told_with_what_was_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
):
    assert fails(capsys, "fit", "--config", CONFIG, *arguments) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer: {max_epohcs: 3}", "`trainer` has no setting `max_epohcs`; did you mean `max_epochs`?"),
        ("trianer: {max_epochs: 3}", "there is no setting `trianer.max_epochs`; did you mean `trainer`?"),
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


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]):
    assert fails(capsys, "fti") == "there is no command `fti`; did you mean `fit`?"
    assert fails(capsys, "compaer") == "there is no command `compaer`; did you mean `compare`?"
    assert "`compare` as the first argument" in fails(capsys, "--config", CONFIG, "compare")


def test_a_message_of_our_own_stays_as_it_is():
    message = "Expected `alpha` to be a number in (0, 1), but got 2."
    assert told(message) == message


def test_few_choices_are_listed_where_none_is_near():
    assert nearest("zebra", ["one", "two"]) == "choose from one, two."
    assert nearest("zebra", map(str, range(31))) == "see `--help`."
    assert nearest("zebra", []) == "see `--help`."


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
    expected = "Parser key \"trainer.max_epochs\": Expected a <class 'int'> Given value: two"
    assert one_line(ValueError(WRONG_NUMBER)) == expected


def test_an_error_of_our_own_is_told_as_it_is():
    message = "Expected `alpha` to be a number in (0, 1), but got 2."
    assert one_line(ValueError(message)) == message


def test_an_error_without_a_message_is_named():
    assert one_line(KeyError()) == "KeyError"
    assert one_line(TimeoutError("")) == "TimeoutError"
