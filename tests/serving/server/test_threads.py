from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from dubio.serving.server.threads import divide


def test_processors_are_divided_among_workers(settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    processors = len(os.sched_getaffinity(0))
    given = settings(torch_threads=None, workers=1, prediction_threads=1)
    assert divide(given).torch_threads == processors
    assert divide(given.model_copy(update={"workers": processors})).torch_threads == 1
    assert divide(given.model_copy(update={"workers": 200})).torch_threads == 1
    chosen = settings(torch_threads=3, workers=4)
    assert divide(chosen).torch_threads == 3


@pytest.mark.parametrize(("wished", "threads"), [("5", 5), (" 5 ", 5), ("5,2", 5), ("0", 1)])
def test_the_variable_of_openmp_is_obeyed_and_the_setting_wins(
    settings: Callable, monkeypatch: pytest.MonkeyPatch, wished: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wished)
    assert divide(settings(torch_threads=None)).torch_threads == threads
    assert divide(settings(torch_threads=3)).torch_threads == 3


def test_a_variable_that_is_no_number_is_as_none(settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert divide(settings(torch_threads=None, workers=1)).torch_threads == len(os.sched_getaffinity(0))
