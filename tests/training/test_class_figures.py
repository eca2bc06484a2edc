"""Figures by class, against scikit-learn's."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from rich.table import Table
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from dubio.training.class_figures import ClassFigures, class_table, measured_rate, never_predicted


def _written(table: Table) -> str:
    written = io.StringIO()
    Console(width=100, file=written).print(table)
    return written.getvalue()


def _drawn(num_classes: int = 4, rows: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(num_classes, (rows,), generator=generator) for _ in range(2))  # type: ignore[return-value]


def test_they_are_those_of_scikit_learn():
    labels, predicted = _drawn()
    figures = ClassFigures.of(labels, predicted, labels == predicted, 4)
    assert figures.recall.tolist() == pytest.approx(recall_score(labels, predicted, average=None))
    assert figures.f1.tolist() == pytest.approx(f1_score(labels, predicted, average=None))
    assert figures.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert torch.equal(figures.flagged_C, figures.right_C)


def test_a_confusion_matrix_says_the_same():
    labels, predicted = _drawn()
    counted = ClassFigures.of(labels, predicted, labels == predicted, 4)
    figures = ClassFigures.of_confusion(torch.from_numpy(confusion_matrix(labels, predicted)))
    for name in ("rows_C", "predicted_C", "right_C"):
        assert torch.equal(getattr(figures, name), getattr(counted, name))


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_count():
    labels, predicted = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    figures = ClassFigures.of(labels, predicted, labels > 5, 3)
    assert figures.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert figures.never_predicted == []
    assert never_predicted(figures, "abc") is None


def test_a_class_that_is_never_predicted_is_told_with_its_rows():
    labels = torch.tensor([0] * 96 + [1] * 4)
    figures = ClassFigures.of(labels, torch.zeros_like(labels), labels == 1, 2)
    assert never_predicted(figures, ["no", "fraud"]) == (
        "of the test rows none is predicted to be 'fraud' (4 rows); set `model.init_args.class_weights: balanced` or "
        "`data.init_args.sampling: balanced`, or train longer."
    )
    text = _written(class_table(figures, ["no", "[red]fraud"]))
    assert "[red]fraud" in text  # a name is no markup
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if "%" in line]
    assert rows == [["no", "96", "100.0%", "0.980", "0 (0.0%)"], ["[red]fraud", "4", "0.0%", "0.000", "4 (100.0%)"]]


def test_of_many_classes_those_of_lowest_recall_are_shown():
    right = torch.arange(50).flip(0)
    figures = ClassFigures(torch.full((50,), 50), torch.full((50,), 50), right)
    text = _written(class_table(figures, [f"class {index}" for index in range(50)]))
    assert "20 of 50 classes, by recall" in text
    assert [line.split("│")[1].strip() for line in text.splitlines() if "%" in line] == [
        f"class {index}" for index in range(49, 29, -1)
    ]


@pytest.mark.parametrize(
    ("flagged", "rows", "told"),
    [
        # scipy.stats.binomtest(10, 175).proportion_ci() is [0.0277, 0.1026]
        (10, 175, "10 of 175 test rows flagged (5.7%, 95% interval 2.8% to 10.3%): consistent with at most 5.0%"),
        (0, 100, "0 of 100 test rows flagged (0.0%, 95% interval 0.0% to 3.6%): consistent with at most 5.0%"),
        (
            90,
            1000,
            "90 of 1000 test rows flagged (9.0%, 95% interval 7.3% to 10.9%): NOT consistent with at most 5.0%; are "
            "test and calibration rows alike?",
        ),
    ],
)
def test_a_measured_rate_says_whether_it_refutes_the_promise(flagged: int, rows: int, told: str):
    assert measured_rate(flagged, rows, 0.05) == told
