"""Threads: a committee computes with as many as torch was told to, in whichever thread it is asked."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dubio.models import MLP
from dubio.uncertainty import Committee
from dubio.uncertainty.execution.grouped import GroupedLinear
from dubio.uncertainty.execution.kernels import missing_onednn

pytestmark = pytest.mark.skipif(missing_onednn(torch.zeros(1)) is not None, reason="torch has no oneDNN here")
X = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def openmp() -> ctypes.CDLL:
    """The library that torch's operations run their threads by, which knows how many this thread would use."""
    maps = Path("/proc/self/maps")
    paths = [line.split()[-1] for line in maps.read_text().splitlines()] if maps.exists() else []
    path = next((path for path in paths if re.match(r"lib[gi]?omp", Path(path).name) and "/torch/" in path), None)
    if path is None:
        pytest.skip("torch's OpenMP library is not to be found")
    return ctypes.CDLL(path)


@pytest.mark.parametrize("strategy", ["chain", "thinned", "vmap", "loop"])
def test_a_new_thread_computes_with_the_threads_that_torch_was_told(strategy, openmp):
    network = MLP(in_features=20, widths=(32, 16), num_classes=3, rates=(0.5, 0.5)).eval()
    committee = Committee(network, X[:1], num_samples=8, strategy=strategy)
    torch.set_num_threads(3)  # no test's and no machine's default
    threads: list[int] = []

    def ask() -> None:
        committee(X)
        threads.append(openmp.omp_get_max_threads())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert threads == [3]


@pytest.mark.parametrize("built", [1, 2, 4])
def test_a_grouped_layer_learns_the_rows_that_fit_for_each_number_of_threads(built):
    weight, bias = torch.randn(6, 143, 77), torch.randn(6, 143)

    def expected(x: Tensor) -> Tensor:
        return torch.einsum("koi,bki->bko", weight, x) + bias

    torch.set_num_threads(built)
    with torch.inference_mode():
        grouped = GroupedLinear(weight, bias, relu=False)
        assert list(grouped.rows) == [built]
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            for rows in (1, 17, 33):
                x = torch.randn(rows, 6, 77)
                torch.testing.assert_close(grouped(x), expected(x), rtol=1e-4, atol=1e-4)
        assert sorted(grouped.rows) == [1, 2, 4]
