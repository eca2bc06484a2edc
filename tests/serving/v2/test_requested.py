from __future__ import annotations

import pytest

from serving.errors import InvalidRequest
from serving.v2.input_tensor import Target
from serving.v2.outputs import OUTPUTS
from serving.v2.requested import Requested, everything, read_outputs

TARGET = Target(name="m", shape=(5,), classes=4, committee=16, max_rows=5)


def read(entries: object, *, binary: bool = False) -> tuple[Requested, ...]:
    return read_outputs(entries, binary=binary, target=TARGET)


def test_the_order_is_the_callers_and_an_outputs_own_choice_wins() -> None:
    entries = [
        {"name": "mc_std", "parameters": {"binary_data": False}},
        {"name": "label"},
        {"name": "mc_mean", "parameters": {"classification": 2}},
    ]
    assert read(entries, binary=True) == (
        Requested(OUTPUTS["mc_std"], binary=False),
        Requested(OUTPUTS["label"], binary=True),
        Requested(OUTPUTS["mc_mean"], binary=True, classification=2),
    )


def test_none_named_is_none_chosen() -> None:
    assert read(None) == read([]) == ()
    assert [requested.output.name for requested in everything(binary=True)] == [
        name for name in OUTPUTS if name != "mc_samples"
    ]


@pytest.mark.parametrize(("given", "meant"), [(0, None), (1, 1), (4, 4), (10**12, 4), (None, None)])
def test_there_are_only_so_many_classes(given: int | None, meant: int | None) -> None:
    [requested] = read([{"name": "probabilities", "parameters": {"classification": given}}])
    assert requested.classification == meant


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"name": "probabilities", "parameters": {"classification": -1}}, "at least 1"),
        ({"name": "probabilities", "parameters": {"classification": "2"}}, "at least 1"),
        ({"name": "probabilities", "parameters": {"classification": True}}, "at least 1"),
        ({"name": "mutual_information", "parameters": {"classification": 2}}, "a number for each class"),
        ({"name": "label", "parameters": {"binary_data": 1}}, "true or false"),
        ({"name": "label", "parameters": {"shared_memory_region": "r"}}, "shared memory is not supported"),
        ({"name": "labels"}, "unexpected inference output 'labels' for model 'm'; its outputs: label, "),
    ],
)
def test_what_makes_no_sense_is_refused(entry: dict, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        read([entry])


def test_an_output_is_named_once() -> None:
    with pytest.raises(InvalidRequest, match="output 'label' already requested"):
        read([{"name": "label"}, {"name": "mc_mean"}, {"name": "label"}])
