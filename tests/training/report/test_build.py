"""Reports of images, tables and texts: the same bytes each time, and the numbers of `test`."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import jsonschema_rs
import pytest
import torch
import yaml

from dubio.models import NetworkSpec, TextCNN
from dubio.models.checkpoint import file
from dubio.training import CalibrationSettings, Table, Text, calibrate, evaluation
from dubio.training.cli.main import main
from dubio.training.errors import TrainingError
from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.report import build
from tests.training.report.conftest import Written

DAY = date(2026, 1, 2)
PICTURES = {"reliability", "risk_coverage", "scores", "roc", "resplits", "settling", "corruptions", "label_sets"}
PICTURES |= {"label_set_resplits"}
EXAMPLES = {"most_uncertain", "most_unfamiliar"}


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_written_again_it_is_the_same_byte_for_byte(written: Written, tmp_path: Path):
    main(["report", "--ckpt", str(written.checkpoint), "--output", str(tmp_path / "again")])
    first, second = _files(written.folder), _files(tmp_path / "again")
    dates = [re.search(r'"date": "([\d-]+)"', each["report.json"].decode())[1] for each in (first, second)]
    if dates[0] != dates[1]:  # midnight came between them
        for name in ("report.html", "report.json"):
            second[name] = second[name].replace(dates[1].encode(), dates[0].encode())
    assert first == second
    assert first.keys() == {f"{name}.png" for name in PICTURES | EXAMPLES | {"acceptance"}} | {
        "report.html",
        "report.json",
        "report.schema.json",
    }


def test_the_numbers_keep_to_their_schema(written: Written):
    schema = json.loads((written.folder / "report.schema.json").read_text())
    numbers = json.loads((written.folder / "report.json").read_text())
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid(numbers)
    assert not validator.is_valid({**numbers, "more": 1})
    assert not validator.is_valid({name: value for name, value in numbers.items() if name != "promise"})


def test_its_numbers_are_those_of_the_test(written: Written):
    measured = evaluation.evaluate(written.predictor, written.data, before=True)
    content = written.content
    for name, quality in ((DETERMINISTIC, measured.deterministic), (MC, measured.mc)):
        for figure, value in vars(quality).items():
            told = getattr(content.answers[name].after, figure)
            assert told.value == pytest.approx(value, rel=1e-3, abs=1e-5)
            assert (told.low, told.high) == pytest.approx(measured.intervals[name][figure], rel=2e-2, abs=1e-4)
            before = getattr(content.answers[name].before, figure)
            assert before.value == pytest.approx(getattr(measured.before[name], figure), rel=1e-3, abs=1e-5)
        recalls = [each.figures.accuracy.value for each in content.answers[name].by_class]
        if name == DETERMINISTIC:
            assert recalls == pytest.approx(measured.by_class.recall.tolist(), rel=1e-5)
    sets, (acceptance,) = content.label_sets, content.acceptances
    assert (sets.covered.count, sets.covered.rows) == (measured.answers.covered, measured.rows)
    assert sets.mean_size == pytest.approx(measured.answers.size, rel=1e-5)
    promised = written.predictor.promises.acceptances[0]
    assert (acceptance.risk, acceptance.reason) == (promised.risk, promised.refusal)
    assert content.promise.measured.count == measured.flagged
    assert content.promise.measured.rows == measured.rows
    assert [each.count for each in content.promise.by_class] == measured.by_class.flagged_C.tolist()
    calibration = written.predictor.detector.calibration
    assert (content.promise.alpha, content.promise.delta) == (calibration.alpha, calibration.delta)
    assert content.promise.level == pytest.approx(calibration.level, rel=1e-5)
    assert [split.rows for split in content.data.splits] == [
        len(written.data.splits[name].labels) for name in ("train", "validation", "select", "calibration", "test")
    ]


def test_a_table_is_reported_on_from_its_own_folder(coin: Path):
    main(["report", "--ckpt", "runs/coin/model.ckpt"])
    folder = coin / "runs" / "coin" / "model_report"
    assert {path.stem for path in folder.glob("*.png")} == PICTURES  # rows are told in words
    numbers = json.loads((folder / "report.json").read_text())
    assert [each["name"] for each in numbers["out_of_distribution"]] == ["uniform noise", "columns of different rows"]
    assert {each["name"] for each in numbers["corruptions"]} == {"missing columns", "noise"}
    accuracy = numbers["answers"][MC]["after"]["accuracy"]
    assert accuracy["low"] < 0.6  # a coin is a coin
    assert numbers["data"]["configuration"] == "config.yaml beside the checkpoint"
    found = numbers["most_uncertain"][0]
    line = (coin / "coin.csv").read_text().splitlines()[int(found["at"].removeprefix("line ")) - 1]
    value = re.search(r"a: (-?[\d.e-]+)", found["shown"])[1]
    assert float(line.split(",")[1]) == pytest.approx(float(value), rel=1e-4)
    example = found["shown"]
    assert re.match(r"a: -?[\d.e-]+, b: ", example)
    assert example.endswith("and 3 more")


def test_texts_are_reported_on(tmp_path: Path):
    words = {"yes": "good fine nice lovely", "no": "bad poor awful sad"}
    draws = torch.Generator().manual_seed(0)
    rows = []
    for index in range(300):
        label = ("yes", "no")[index % 2]
        chosen = [words[label].split()[int(torch.randint(4, (), generator=draws))] for _ in range(3)]
        rows.append({"text": f"it <i>was</i> {' '.join(chosen)}", "label": label})
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = Text(str(path), length=16)
    arguments = {"vocabulary": int(data.input.high) + 1, "features": 8, "width": 8, "num_classes": 2, "padding": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TextCNN(**arguments).eval()
    spec = NetworkSpec(class_path="dubio.models.TextCNN", init_args=arguments)
    settings = CalibrationSettings(alpha=0.2, delta=0.2, num_samples=4)
    predictor = calibrate(network, spec, data, settings, measure_seconds=0.1)
    report = build.build(predictor, data, Path("model.ckpt"), DAY)
    assert report.pictures.keys() == PICTURES
    assert [each.name for each in report.content.out_of_distribution] == ["words drawn from the vocabulary"]
    assert {each.name for each in report.content.corruptions} == {"dropped words"}
    assert " ".join(report.content.most_uncertain[0].shown.split()[:4]) == "it < i >"
    page = report.write(tmp_path / "report").read_text()
    assert "it &lt; i &gt; was" in page


def test_a_checkpoint_that_is_not_calibrated_is_refused_with_the_cure(
    runs: Path, coin: Path, capsys: pytest.CaptureFixture[str]
):
    best = runs / "digits_mlp" / "checkpoints" / "best.ckpt"
    with pytest.raises(SystemExit) as caught:
        main(["report", "--ckpt", str(best)])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"{best}: expected a calibrated checkpoint" in said
    assert f"dubio-train calibrate --config ... --ckpt_path {best}" in said


def test_without_calibration_rows_there_is_nothing_to_hold_the_promise_against(written: Written):
    data = type(written.data)()
    data.follow(file.data_record(written.checkpoint, file.read_content(written.checkpoint)), "test")
    data.load().splits.pop("calibration")  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match=r"rows in the calibration split of digits"):
        build.build(written.predictor, data, written.checkpoint, DAY)


@pytest.mark.slow
def test_a_table_that_has_moved_is_given_by_its_path(coin: Path, tmp_path: Path):
    (coin / "coin.csv").rename(tmp_path / "moved.csv")
    content = yaml.safe_load((coin / "runs" / "coin" / "config.yaml").read_text())
    assert content["data"]["class_path"] == f"{Table.__module__.rpartition('.data.')[0]}.Table"
    main(["report", "--ckpt", "runs/coin/model.ckpt", "--data.path", str(tmp_path / "moved.csv")])
    assert (coin / "runs" / "coin" / "model_report" / "report.html").is_file()
