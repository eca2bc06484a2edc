"""CUDA graphs: a strategy whose kernels are launched as one, for GPUs, which small batches leave waiting for Python.

A CUDA graph is captured once for a batch size, with all members, and then launched by a single call. It reads and
writes memory that it shares with a committee's other graphs, so whoever launches one holds their lock from copying the
inputs in to copying the logits out; all of that is only queued on the GPU, which takes microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import noise_like
from dubio.uncertainty.execution.fallback import Fallbacks, Strategy
from dubio.uncertainty.execution.tolerance import require_agreement

# Batch sizes that are captured; a batch is padded to the next one. Beyond the last, arithmetic dominates.
CAPTURED_BATCHES = (1, 2, 4, 8, 16, 32)
# What the members' largest activation may take in a graph, which keeps the memory of its own as long as it is there.
CAPTURED_BYTES = 2**27
WARM_UP = 3
# Of the process: several models may load at a time, and captures that overlap can break each other.
_capturing = threading.Lock()

# Captures a function without arguments: gives what launches it again, and where its result then lies.
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


class CapturedStrategy:
    """A strategy, captured for a few batch sizes; thread-safe.

    Args:
        strategy: Gives logits ``[K, B, C]`` and does nothing that a graph would miss; answers what was not captured.
        row: An input, ``[1, ...]``.
        num_samples: K; all members are captured.
        max_rows: Rows of the largest batch to capture.
        capture: Makes the graphs, see `cuda_graphs`.
        lock: Of all graphs that share memory.

    Raises:
        RuntimeError: The strategy waits for the GPU, or does something else that cannot be captured.
    """

    def __init__(
        self, strategy: Strategy, row: Tensor, num_samples: int, max_rows: int, capture: Capture, lock: threading.Lock
    ) -> None:
        self._strategy, self._members, self._lock = strategy, slice(0, num_samples), lock
        # By batch size, smallest first: memory that is read, ``[B, ...]``, what launches, and memory that is written.
        self._captured: dict[int, tuple[Tensor, Callable[[], None], Tensor]] = {}
        for batch in CAPTURED_BATCHES:
            if batch > max_rows:
                break
            inputs = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
            self._captured[batch] = (inputs, *capture(partial(strategy, inputs, self._members)))

    def check(self) -> None:
        """Hold every graph against the strategy, on other rows than it was captured with.

        Raises:
            Disagreement: A graph gives something else, or nothing at all.
        """
        for inputs, _, logits in self._captured.values():
            x = noise_like(inputs)
            expected = self._strategy(x, self._members)
            with self._lock:
                logits.fill_(float("nan"))  # which a graph that launches nothing leaves there
            require_agreement(self(x, self._members), expected)

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        batch = next((batch for batch in self._captured if batch >= len(x)), None)
        if batch is None or members != self._members or x.shape[1:] != self._captured[batch][0].shape[1:]:
            return self._strategy(x, members)
        inputs, launch, logits = self._captured[batch]
        with self._lock:
            # Rows beyond the batch keep what was there; no row's logits depend on another row.
            inputs[: len(x)].copy_(x)
            launch()
            return logits[:, : len(x)].clone()


def cuda_graphs(device: torch.device) -> Capture:
    """What captures functions as CUDA graphs that share memory: one at a time may run until its result is copied.

    Args:
        device: On which the functions run; a capture on another one would record nothing.

    Source: The PyTorch documentation on CUDA graphs; first runs on a stream of their own let libraries settle.
    """
    with torch.cuda.device(device):
        pool = torch.cuda.graph_pool_handle()

    def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        with _capturing, torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    function()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile: only this one's calls are captured.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                logits = function()
        return graph.replay, logits

    return capture


def capture_all(
    strategies: Mapping[str, Strategy],
    row: Tensor,
    num_samples: int,
    max_rows: int,
    capture: Capture,
    fallbacks: Fallbacks,
) -> dict[str, Strategy]:
    """Capture each strategy where that is possible and gives the same; the plain loop stays as it is.

    Args:
        strategies: By name.
        row: An input, ``[1, ...]``.
        num_samples: K.
        max_rows: Rows of the largest batch to capture.
        capture: Makes the graphs, see `cuda_graphs`.
        fallbacks: Are told which could not be captured.
    """
    fastest, lock = dict(strategies), threading.Lock()
    members = slice(0, num_samples)
    # Another batch than those that were captured, and padded.
    batches = [torch.cat([noise_like(row.expand(rows, *row.shape[1:])), row]) for rows in (0, 2)]
    for name in (name for name in strategies if name != "loop"):
        with fallbacks.attempt(f"{name} as a CUDA graph"):
            captured = CapturedStrategy(strategies[name], row, num_samples, max_rows, capture, lock)
            captured.check()
            for x in batches:
                require_agreement(captured(x, members), strategies[name](x, members))
            fastest[name] = captured
    return fastest
