from __future__ import annotations

import csv
import gc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dubio.models import load
from dubio.models.errors import ModelError
from dubio.training import Digits
from dubio.training.cli.lightning_cli import CLI
from dubio.training.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
CONFIG = str(ROOT / "configs" / "digits_mlp.yaml")
QUICK = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "4"]


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to write into; its parent is the folder of runs."""
    return Path(shutil.copytree(runs / "digits_mlp", tmp_path / "digits_mlp"))


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a mistake prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("dubio-train: error: ")
    return line


def test_a_fit_leaves_a_model_that_predicts(runs: Path, digits: Digits):
    x, labels = digits.raw("test")
    predictor = load(runs / "digits_mlp" / "model.ckpt")
    answer = predictor.predict(x.numpy())
    assert (answer.label == labels.numpy()).mean() > 0.9
    assert (answer.mc_label == labels.numpy()).mean() > 0.9
    assert answer.flagged.mean() < 0.1
    assert predictor.provenance.data == "digits (scikit-learn)"
    assert predictor.committee.num_samples == 64


def test_a_fit_serves_the_best_checkpoint_not_the_last(runs: Path):
    folder = runs / "digits_mlp"
    best, served = (torch.load(folder / name, weights_only=True) for name in ("checkpoints/best.ckpt", "model.ckpt"))
    assert best["epoch"] == served["epoch"]
    for name, tensor in best["state_dict"].items():
        assert torch.equal(served["state_dict"][name], tensor)


def test_every_checkpoint_is_plain_data_and_says_how_it_was_made(runs: Path):
    for path in (runs / "digits_mlp").rglob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        assert content["hyper_parameters"]["network"]["class_path"] == "dubio.models.MLP"
        assert all(name.startswith("network.") for name in content["state_dict"])


def test_the_run_is_logged(runs: Path):
    (path,) = (runs / "digits_mlp").glob("logs/*/metrics.csv")
    with path.open() as file:
        columns = next(csv.reader(file))
    assert {"epoch", "train_loss", "val_loss", "val_accuracy"} <= set(columns)


def test_the_saved_configuration_repeats_the_run(run: Path, runs: Path):
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 6
    assert saved["calibration"]["num_samples"] == 64
    assert not {"ckpt_path", "config"} & set(saved)
    (run / "model.ckpt").unlink()
    main(["fit", "--config", str(run / "config.yaml"), "--runs", str(run.parent)])
    again, first = load(run / "model.ckpt"), load(runs / "digits_mlp" / "model.ckpt")
    assert again.provenance.weights_sha256 == first.provenance.weights_sha256
    assert again.committee.fingerprint == first.committee.fingerprint


def test_a_fit_resumes_from_a_served_checkpoint(run: Path):
    before = torch.load(run / "model.ckpt", weights_only=True)
    source = str(run.parent / "source.ckpt")
    shutil.copy(run / "model.ckpt", source)
    more = ["--trainer.max_epochs", str(before["epoch"] + 3), "--trainer.enable_progress_bar", "false"]
    main(["fit", "--config", CONFIG, "--runs", str(run.parent), *more, "--ckpt_path", source])
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == before["epoch"] + 2
    assert last["global_step"] > before["global_step"] > 0


def test_testing_takes_the_served_checkpoint(run: Path, digits: Digits, capsys: pytest.CaptureFixture[str]):
    x, labels = digits.raw("test")
    expected = (load(run / "model.ckpt").predict(x).label == labels.numpy()).mean()
    for extra in ([], ["--ckpt_path", str(run / "model.ckpt")]):
        main(["test", "--config", CONFIG, "--runs", str(run.parent), *extra])
        line = next(line for line in capsys.readouterr().out.splitlines() if "test_accuracy" in line)
        assert float(line.split("│")[2]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("subcommand", ["test", "validate", "predict", "calibrate"])
def test_random_weights_are_never_tested(subcommand: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    message = fails(capsys, subcommand, "--config", CONFIG, "--runs", str(tmp_path))
    assert "digits_mlp/model.ckpt" in message
    assert "dubio-train fit" in message


def test_predict_answers_every_row_and_says_what_it_was_for_at_the_fit(run: Path, digits: Digits):
    main(["predict", "--config", CONFIG, "--runs", str(run.parent)])
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers = digits.load().rows["test"]
    answer = load(run / "model.ckpt").predict(digits.raw("test")[0])
    assert [int(row["row"]) for row in rows] == list(range(1797))
    assert {int(row["row"]) for row in rows if row["split"] == "test"} == set(numbers.tolist())
    assert [int(rows[number]["deterministic.label"]) for number in numbers] == answer.label.tolist()
    assert [rows[number]["ood.flagged"] == "true" for number in numbers] == answer.flagged.tolist()
    for field, values in (("deterministic.probabilities", answer.probabilities), ("mc.std", answer.mc_std)):
        written = [[float(rows[number][f"{field}.{name}"]) for name in digits.classes] for number in numbers]
        np.testing.assert_allclose(written, values, atol=1e-5)


def test_calibrating_again_changes_the_promise_and_not_the_weights(run: Path):
    before = load(run / "model.ckpt")
    main(["calibrate", "--config", CONFIG, "--runs", str(run.parent), "--calibration.alpha", "0.1"])
    after = load(run / "model.ckpt")
    assert after.detector.calibration.alpha == 0.1
    assert after.detector.calibration.level > before.detector.calibration.level
    assert after.provenance.weights_sha256 == before.provenance.weights_sha256
    # Up to what rounding may add, which depends on the strategy that was the fastest.
    apart_N = (after.detector.calibration.scores_N - before.detector.calibration.scores_N).abs()
    assert float(apart_N.median()) < 0.02


def test_calibrating_elsewhere_leaves_the_source_alone(run: Path):
    source = run / "checkpoints" / "last.ckpt"
    before, output = source.read_bytes(), run.parent / "other.ckpt"
    paths = ["--ckpt_path", str(source), "--output", str(output)]
    main(["calibrate", "--config", str(run / "config.yaml"), "--calibration.num_samples", "4", *paths])
    assert source.read_bytes() == before
    assert load(output).committee.num_samples == 4


def test_a_promise_that_cannot_be_kept_leaves_the_model_as_it_was(run: Path, capsys: pytest.CaptureFixture[str]):
    before = (run / "model.ckpt").read_bytes()
    arguments = ["--config", CONFIG, "--runs", str(run.parent), "--calibration.alpha", "0.001"]
    assert "at least 2995 calibration rows" in fails(capsys, "calibrate", *arguments)
    assert (run / "model.ckpt").read_bytes() == before


def test_configurations_compose(tmp_path: Path):
    (tmp_path / "short.yaml").write_text("name: both\ntrainer:\n  max_epochs: 1\ncalibration:\n  alpha: 0.2\n")
    configs = ["--config", CONFIG, "--config", str(tmp_path / "short.yaml")]
    main(["fit", *configs, "--runs", str(tmp_path), *QUICK])
    saved = yaml.safe_load((tmp_path / "both" / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 1
    assert saved["model"]["init_args"]["network"]["init_args"]["widths"] == [512, 256, 128]
    calibration = load(tmp_path / "both" / "model.ckpt").detector.calibration
    assert (calibration.alpha, calibration.delta) == (0.2, 0.05)


def test_a_run_without_a_name_takes_that_of_its_configuration(tmp_path: Path):
    content = yaml.safe_load(Path(CONFIG).read_text())
    del content["name"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(tmp_path / "mine.yaml"), "--runs", str(tmp_path), *QUICK])
    assert (tmp_path / "mine" / "model.ckpt").is_file()
    assert yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())["name"] == "mine"


def test_the_number_of_threads_is_a_setting(tmp_path: Path):
    before = torch.get_num_threads()
    try:
        trial = ["--trainer.fast_dev_run", "true", "--threads", str(before + 1)]
        main(["fit", "--config", CONFIG, "--runs", str(tmp_path), *QUICK, *trial])
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_trial_run_writes_nothing(tmp_path: Path):
    main(["fit", "--config", CONFIG, "--runs", str(tmp_path), "--trainer.fast_dev_run", "true", *QUICK])
    assert list(tmp_path.iterdir()) == []


def test_garbage_is_collected_again_after_the_imports(capsys: pytest.CaptureFixture[str]):
    for arguments in (["audit", "--ckpt", "nowhere.ckpt"], ["test", "--name", "nowhere"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert gc.isenabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.network.num_classes", "7"], r"got [2, 7]; set `model.init_args.network.init_args.num_classes: 10`"),
        (["--model.network.in_features", "63"], "does not take inputs of shape [1, 8, 8]"),
        (["--model.network.rates", "[0, 0, 0]"], "no dropout site"),
        (["--model.network.rates", "[0.5]"], "error: Expected `rates` to have one rate for each of 3 layers"),
        (["--model.network.depth", "3"], "dubio.models.MLP has no option `depth`"),
        (["--model.network.width", "3"], "did you mean `widths`?"),
        (["--model.network", "Foo"], "Foo"),
        (["--model.optimizer.lr", "-1"], "Invalid learning rate: -1"),
        (["--data.train", "0.9"], "add up to 1, but train 0.9"),
        (["--data.calibration", "0.02", "--data.train", "0.7"], "at least 59 calibration rows"),
        (["--calibration.alpha", "2"], "`alpha` to be a number in (0, 1), but got 2"),
        (["--calibration.num_samples", "1"], "`num_samples` to be an integer in [2, 4096], but got 1"),
        (["--calibration.scores", "[magic]"], "mutual_information"),
        (["--trainer.max_epochs", "two"], "`trainer.max_epochs` to be a whole number, but got `two`"),
        (["--trainer.max_epoch", "2"], "did you mean `trainer.max_epochs`?"),  # and not taken for it
        (["--name", "../elsewhere"], "`name` to be a plain folder name, but got '../elsewhere'"),
        (["--threads", "0"], "threads"),
        (["--nonsense", "1"], "there is no setting `nonsense`"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_a_mistake_is_one_clear_line_before_any_training(tmp_path: Path, capsys, arguments: list[str], message: str):
    line = fails(capsys, "fit", "--config", CONFIG, "--runs", str(tmp_path), *QUICK, *arguments)
    assert message in line
    assert "Traceback" not in line
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_refusal_shows_what_the_rows_can_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    few = ["--data.calibration", "0.02", "--data.train", "0.7", "--runs", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["fit", "--config", CONFIG, *QUICK, *few])
    said = capsys.readouterr().err
    assert "what 1797 rows can promise, with confidence 95%" in said
    assert "set `--calibration.alpha 0.08`, or train anew with `--data.calibration 0.04 --data.train 0.68`" in said
    assert said.splitlines()[-1].startswith("dubio-train: error: Expected at least 59 calibration rows")


def test_no_name_and_no_subcommand_are_mistakes(capsys: pytest.CaptureFixture[str]):
    nameless = ["--model", "Classifier", "--model.network", "MLP", "--data", "Digits"]
    assert "give `--name` or `--config`" in fails(capsys, "fit", *nameless)
    both = "Expected --data and --model, but got neither; give `--config NAME`: a file, or a configuration"
    assert both in fails(capsys, "fit", "--name", "x")
    assert "Expected --data, but got none; give `--config NAME`" in fails(capsys, "fit", *nameless[:4], "--name", "x")
    assert fails(capsys).endswith(
        "Expected a command, but got none; known: fit, validate, test, predict, calibrate, audit, compare, configs, "
        "report."
    )
    assert "did you mean `fit`?" in fails(capsys, "fti")


def test_a_training_that_diverges_is_not_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    hot = ["--model.optimizer", "SGD", "--model.optimizer.lr", "1e30", "--model.scheduler", "null"]
    line = fails(capsys, "fit", "--config", CONFIG, "--runs", str(tmp_path), *QUICK, *hot)
    assert "diverged" in line
    assert not (tmp_path / "digits_mlp" / "model.ckpt").exists()


def test_a_flag_or_a_variable_brings_the_traceback_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wrong = ["fit", "--config", CONFIG, "--runs", str(tmp_path), "--data.train", "0.9"]
    with pytest.raises(ValueError, match="add up to 1"):
        main([*wrong, "--traceback"])
    with pytest.raises(SystemExit):
        main(wrong)
    monkeypatch.setenv("DUBIO_TRACEBACK", "1")
    with pytest.raises(ValueError, match="add up to 1"):
        main(wrong)


@pytest.mark.slow
def test_the_flag_is_taken_from_the_process_too(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "dubio.training",
        "fit",
        "--config",
        CONFIG,
        "--runs",
        str(tmp_path),
        "--data.train",
        "2",
    ]
    outcome = subprocess.run([*command, "--traceback"], capture_output=True, text=True, check=False)
    assert "Traceback" in outcome.stderr
    assert "train fraction" in outcome.stderr


def test_a_model_that_is_replaced_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "digits_mlp").mkdir()
    (tmp_path / "digits_mlp" / "model.ckpt").write_bytes(b"an older one")
    main(["fit", "--config", CONFIG, "--runs", str(tmp_path), *QUICK])
    assert "digits_mlp/model.ckpt is there already; it is replaced" in capsys.readouterr().err.replace("\n", "")
    assert load(tmp_path / "digits_mlp" / "model.ckpt").detector is not None


def test_a_checkpoint_that_names_a_class_of_before_is_written_anew(run: Path):
    path = run / "model.ckpt"
    content = torch.load(path, weights_only=True)
    content["dubio"]["network"]["class_path"] = content["hyper_parameters"]["network"]["class_path"] = "models.MLP"
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"'dubio\.models\.MLP' now; write the file anew"):
        load(path)
    main(["calibrate", "--config", CONFIG, "--runs", str(run.parent), "--calibration.num_samples", "4"])
    assert load(path).network_spec.class_path == "dubio.models.MLP"


def test_a_hostile_checkpoint_chooses_no_class(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lightning would import and build what a checkpoint's hyperparameters name."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    content = torch.load(run / "model.ckpt", weights_only=True)
    content["hyper_parameters"]["network"] = {"class_path": "evil_module.Evil", "init_args": {}}
    torch.save(content, tmp_path / "evil.ckpt")
    for subcommand in ("test", "calibrate"):
        paths = ["--ckpt_path", str(tmp_path / "evil.ckpt")]
        quick = ["--calibration.num_samples", "4"]
        main([subcommand, "--config", CONFIG, "--runs", str(run.parent), *paths, *quick])
    assert "evil_module" not in sys.modules


def test_a_checkpoint_that_runs_code_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content = torch.load(run / "model.ckpt", weights_only=True)
    torch.save({**content, "extra": subprocess.Popen}, tmp_path / "evil.ckpt")
    for subcommand in ("test", "calibrate", "fit"):
        fails(
            capsys,
            subcommand,
            "--config",
            CONFIG,
            "--runs",
            str(run.parent),
            "--ckpt_path",
            str(tmp_path / "evil.ckpt"),
        )


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_is_complete_and_explains_itself(config: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--config", str(config), "--print_config"])
    assert caught.value.code == 0
    printed, written = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(config.read_text())
    assert written["name"] == config.stem
    # Where the schedule has to be told how long it is, it is told the truth.
    schedule = written["model"]["init_args"]["scheduler"].get("init_args", {})
    assert schedule.get("T_max", written["trainer"]["max_epochs"]) == written["trainer"]["max_epochs"]

    def holds(whole: object, part: object) -> bool:
        if isinstance(part, dict):
            return all(holds(whole[key], value) for key, value in part.items())
        return whole == part

    assert holds(printed, written)
    assert printed["checkpoint"]["monitor"] == "val_loss"


@pytest.mark.parametrize("inside", [True, False])
def test_tensorboard_is_a_matter_of_configuration(tmp_path: Path, inside: bool):
    pytest.importorskip("tensorboard")
    place = [] if inside else ["--trainer.logger.save_dir", str(tmp_path / "board")]
    main(["fit", "--config", CONFIG, "--runs", str(tmp_path), *QUICK, "--trainer.logger", "TensorBoardLogger", *place])
    folder = tmp_path / "digits_mlp" / "logs" if inside else tmp_path / "board"
    assert list(folder.rglob("events.out.tfevents.*"))
    assert (tmp_path / "digits_mlp" / "config.yaml").is_file()


def test_help_teaches(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "\n  dubio-train fit --config digits_mlp " in said
    assert "\n  dubio-train calibrate --config" in said
    assert "DUBIO_TRACEBACK" in said
    for command in (*CLI.subcommands(), "audit", "compare", "configs"):
        assert re.search(rf"^    {command}  +\w", said, flags=re.MULTILINE)
        assert re.search(rf"^usage: [^{{]*{{[^}}]*\b{command}\b", said)
