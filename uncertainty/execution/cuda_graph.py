"""CUDA graphs: a strategy whose kernels are launched as one, for GPUs, which small batches leave waiting for Python.

A CUDA graph is captured once for a batch size, with all members, and then launched by a single call. It reads and
writes memory that it shares with a committee's other graphs, so whoever launches one has that memory to itself from
copying the inputs in to copying the logits out; all of that is only queued on the GPU, which takes microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import noise_like
from dubio.uncertainty.execution.choice import FEW
from dubio.uncertainty.execution.fallback import Fallbacks, Strategy
from dubio.uncertainty.execution.timing import least_seconds
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


class SharedMemory:
    """Memory that graphs read and write: one caller has it at a time, on whatever stream it computes.

    A lock keeps threads apart while they queue their work, and an event keeps the work apart that they have queued: the
    next one's stream waits for the last one's.

    Args:
        device: Where the memory is.
    """

    def __init__(self, device: torch.device) -> None:
        self._lock, self._device = threading.Lock(), device
        self._read = torch.cuda.Event() if device.type == "cuda" else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The memory is the caller's: what is queued meanwhile reads and writes it alone."""
        with self._lock:
            if self._read is not None:
                torch.cuda.current_stream(self._device).wait_event(self._read)
            yield
            if self._read is not None:
                self._read.record(torch.cuda.current_stream(self._device))


@dataclass(frozen=True)
class Recording:
    """All members on a batch of one size.

    Attributes:
        inputs: Memory that is read, ``[B, ...]``.
        launch: Runs what was captured.
        logits: Memory that is written, ``[K, B, C]``.
        faster_than_few: Whether it gives all members sooner than the strategy gives a few.
    """

    inputs: Tensor
    launch: Callable[[], None]
    logits: Tensor
    faster_than_few: bool


class CapturedStrategy:
    """A strategy, captured for a few batch sizes; thread-safe.

    Args:
        strategy: Gives logits ``[K, B, C]`` and does nothing that a graph would miss; answers what was not captured.
        row: An input, ``[1, ...]``.
        num_samples: K; all members are captured.
        max_rows: Rows of the largest batch to capture.
        capture: Makes the graphs, see `cuda_graphs`.
        memory: That all graphs of a committee share.

    Raises:
        RuntimeError: The strategy waits for the GPU, or does something else that cannot be captured.
    """

    def __init__(
        self, strategy: Strategy, row: Tensor, num_samples: int, max_rows: int, capture: Capture, memory: SharedMemory
    ) -> None:
        self._strategy, self._members, self._memory = strategy, slice(0, num_samples), memory
        self._recordings: dict[int, Recording] = {}  # by batch size, smallest first
        for batch in CAPTURED_BATCHES:
            if batch > max_rows:
                break
            inputs = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
            launch, logits = capture(partial(strategy, inputs, self._members))
            self._recordings[batch] = Recording(inputs, launch, logits, self._faster_than_few(inputs, launch))

    def check(self) -> None:
        """Hold every graph against the strategy, on other rows than it was captured with.

        Raises:
            Disagreement: A graph gives something else, or nothing at all.
        """
        for recording in self._recordings.values():
            x = noise_like(recording.inputs)
            expected = self._strategy(x, self._members)
            with self._memory.held():
                recording.logits.fill_(float("nan"))  # which a graph that launches nothing leaves there
            require_agreement(self(x, self._members), expected)

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        recording = next((each for batch, each in self._recordings.items() if batch >= len(x)), None)
        if recording is None or x.shape[1:] != recording.inputs.shape[1:]:
            return self._strategy(x, members)
        if members != self._members and not recording.faster_than_few:
            return self._strategy(x, members)
        with self._memory.held():
            # Rows beyond the batch keep what was there; no row's logits depend on another row.
            recording.inputs[: len(x)].copy_(x)
            recording.launch()
            return recording.logits[members, : len(x)].clone()

    def _faster_than_few(self, inputs: Tensor, launch: Callable[[], None]) -> bool:
        few = slice(0, min(FEW, self._members.stop))
        with self._memory.held():
            replayed = least_seconds(launch, inputs.device)
        return replayed <= least_seconds(partial(self._strategy, inputs, few), inputs.device)


def cuda_graphs(device: torch.device) -> Capture:
    """What captures functions as CUDA graphs that share memory: one at a time may run until its result is copied.

    Args:
        device: On which the functions run; a capture on another one would record nothing.

    Source: The PyTorch documentation on CUDA graphs; first runs on the stream of the capture let libraries settle.
    """
    with torch.cuda.device(device):
        pool = torch.cuda.graph_pool_handle()

    def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        with _capturing, torch.cuda.device(device):
            before, stream = torch.cuda.current_stream(), torch.cuda.Stream()
            try:
                stream.wait_stream(before)
                with torch.cuda.stream(stream):
                    for _ in range(WARM_UP):
                        function()
                before.wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                # Other threads may use the GPU meanwhile: only this one's calls are captured.
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    logits = function()
            finally:
                torch.cuda.set_stream(before)  # a capture that fails leaves the thread on its stream
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
    fastest, memory = dict(strategies), SharedMemory(row.device)
    members = slice(0, num_samples)
    # Another batch than those that were captured, and padded.
    batches = [torch.cat([noise_like(row.expand(rows, *row.shape[1:])), row]) for rows in (0, 2)]
    for name in (name for name in strategies if name != "loop"):
        with fallbacks.attempt(f"{name} as a CUDA graph"):
            captured = CapturedStrategy(strategies[name], row, num_samples, max_rows, capture, memory)
            captured.check()
            for x in batches:
                require_agreement(captured(x, members), strategies[name](x, members))
            fastest[name] = captured
    return fastest
