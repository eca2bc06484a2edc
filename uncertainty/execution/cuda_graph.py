"""Replay: a way whose kernels are launched as one graph, for GPUs, which small batches leave waiting for Python.

A CUDA graph is recorded once for a batch size, with all members, and then launched by a single call. It reads and
writes memory of its own, so whoever launches it holds a lock from copying the inputs in to copying the logits out; all
of that is only queued on the GPU, which takes microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import noise_like
from dubio.uncertainty.execution.tolerance import agree

# Batch sizes that are recorded; a batch is padded to the next one. Beyond the last, arithmetic dominates.
RECORDED_BATCHES = (1, 2, 4, 8, 16, 32)
# What the members' largest activation may take in a recording: each recording keeps its memory.
RECORDED_BYTES = 2**24
WARM_UP = 3

Strategy = Callable[[Tensor, slice], Tensor]
# Records a function without arguments: gives what launches it again, and where its result then lies.
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


@dataclass(frozen=True)
class Recording:
    """One batch size.

    Attributes:
        inputs: memory that it reads, ``[B, ...]``.
        launch: runs it.
        logits: memory that it writes, ``[K, B, C]``.
    """

    inputs: Tensor
    launch: Callable[[], None]
    logits: Tensor


class Replayed:
    """A way, recorded for a few batch sizes; thread-safe.

    Args:
        way: answers whatever was not recorded.
        recordings: by batch size, smallest first.
        num_samples: K; recordings are of all members.
    """

    def __init__(self, way: Strategy, recordings: Mapping[int, Recording], num_samples: int) -> None:
        self._way, self._recordings, self._num_samples = way, recordings, num_samples
        # One for all sizes: they may share memory.
        self._lock = threading.Lock()

    def __call__(self, x: Tensor, which: slice) -> Tensor:
        """Logits ``[K, B, C]`` of some members for a batch of any size ``[B, ...]``."""
        recording = next((self._recordings[batch] for batch in self._recordings if batch >= len(x)), None)
        if recording is None or which != slice(0, self._num_samples) or x.shape[1:] != recording.inputs.shape[1:]:
            return self._way(x, which)
        with self._lock:
            # Rows beyond the batch keep what was there; no row's logits depend on another row.
            recording.inputs[: len(x)].copy_(x)
            recording.launch()
            return recording.logits[:, : len(x)].clone()


def replayed(way: Strategy, row: Tensor, num_samples: int, most: int, record: Record) -> Replayed:
    """Record a way.

    Args:
        way: gives logits ``[K, B, C]`` and does nothing that a recording would miss.
        row: an input, ``[1, ...]``.
        num_samples: K.
        most: rows of the largest batch to record.
        record: makes the recordings, see :func:`cuda_graph`.

    Raises:
        RuntimeError: the way waits for the GPU, or does something else that cannot be recorded.
    """
    everybody = slice(0, num_samples)
    recordings = {}
    for batch in RECORDED_BATCHES:
        if batch > most:
            break
        inputs = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
        launch, logits = record(lambda inputs=inputs: way(inputs, everybody))  # type: ignore[misc]
        recordings[batch] = Recording(inputs, launch, logits)
    return Replayed(way, recordings, num_samples)


def cuda_graph(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record a function's kernels as a CUDA graph.

    Source: the PyTorch documentation on CUDA graphs; first runs on a stream of their own let libraries settle.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile: only this one's calls are recorded.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        logits = function()
    return graph.replay, logits


def recordable(
    strategies: Mapping[str, Strategy], row: Tensor, num_samples: int, most: int, record: Record
) -> dict[str, Strategy]:
    """The strategies, each recorded where that is possible and gives the same; the plain loop stays as it is.

    Args:
        strategies: by name.
        row: as for :func:`replayed`, as are the rest.
    """
    found = dict(strategies)
    everybody = slice(0, num_samples)
    for name, way in strategies.items():
        if name == "loop":
            continue
        try:
            quick = replayed(way, row, num_samples, most, record)
            # Another batch than those that were recorded, and padded.
            batches = [torch.cat([noise_like(row.expand(rows, *row.shape[1:])), row]) for rows in (0, 2)]
            if all(agree(quick(x, everybody), way(x, everybody)) for x in batches):
                found[name] = quick
        except Exception:  # the user's network may do anything between its kernels; the way itself stays
            continue
    return found
