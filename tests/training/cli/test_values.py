from __future__ import annotations

import pytest

from dubio.training.cli import values
from dubio.training.cli.command_line import run
from dubio.training.cli.lightning_cli import CLI
from dubio.training.errors import TrainingError
from dubio.uncertainty.detection.registry import SCORES

TABLE = ["--data", "Table", "--data.path", "a.csv", "--data.target", "y"]


# Through the parser itself: its wording may change with its version, and these would then tell.
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--model.class_weights", "balenced"],
            "`model.init_args.class_weights` to be `balanced` or a mapping such as `{name: value}`, but got "
            "`balenced`; did you mean `balanced`?",
        ),
        (
            ["--data.sampling", "balancd"],
            "`data.init_args.sampling` to be `shuffled` or `balanced`, but got `balancd`; did you mean `balanced`?",
        ),
        (["--data.duplicates", "1"], "`data.init_args.duplicates` to be `keep` or `drop`, but got `1`."),
        (
            ["--model.scheduler_interval", "steps"],
            "`model.init_args.scheduler_interval` to be `epoch` or `step`, but got `steps`; did you mean `step`?",
        ),
        (
            ["--calibration.scores", "[energi]"],
            f"`calibration.scores` to be {', '.join(f'`{name}`' for name in [*SCORES][:-1])} or `{[*SCORES][-1]}`, "
            "but got `energi`; did you mean `energy`?",
        ),
        (
            ["--calibration.scores", "energy"],
            "`calibration.scores` to be a list such as `[a, b]`, but got `energy`; did you mean `[energy]`?",
        ),
        (
            [*TABLE, "--data.ignore", "id"],
            "`data.init_args.ignore` to be a list such as `[a, b]`, but got `id`; did you mean `[id]`?",
        ),
        (
            ["--data", "ImageFolder", "--data.path", "a", "--data.channels", "2"],
            "`data.init_args.channels` to be `1` or `3`, but got `2`.",
        ),
        (["--calibration.stages", "[2, x]"], "`calibration.stages` to be a whole number, but got `x`."),
        (
            ["--trainer.enable_progress_bar", "perhaps"],
            "`trainer.enable_progress_bar` to be `true` or `false`, but got ",
        ),
        (["--threads", "0"], "`threads` to be a whole number above 0, but got `0`."),
        (
            ["--model.optimizer.lr", "x"],
            "`model.init_args.optimizer.init_args.lr` to be a number or the import path of a class, but got `x`.",
        ),
        (
            ["--model.network.widths", "8"],
            "`model.init_args.network.init_args.widths` to be a list such as `[a, b]`, but got `8`; did you "
            "mean `[8]`?",
        ),
        (
            ["--trainer.callbacks", "[{class_path: EarlyStopping, init_args: {monitor: val_loss, patience: x}}]"],
            "`trainer.callbacks.init_args.patience` to be a whole number, but got `x`.",
        ),
        (
            ["--config", "data: {init_args: {sampling: balancd}}"],
            "`data.init_args.sampling` to be `shuffled` or `balanced`, but got `balancd`; did you mean `balanced`?",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_told_with_what_is_allowed(arguments: list[str], told: str):
    with pytest.raises(TrainingError) as refused:
        run(CLI, ["fit", "--config", "digits_mlp", *arguments])
    assert str(refused.value).startswith(f"Expected {told}")


def test_what_is_no_wrong_value_is_not_explained():
    assert values.explain("data", "Expected at least two rows, but got one.") is None
    assert values.explain("data", "Expected a `int`, and nothing is said of what it was.") is None
