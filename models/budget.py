"""Budget: how many operations a step may take and how much memory, both known before they are spent."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from dubio.models.errors import ModelError

MAX_LIVE = 2**30  # bytes of results of a network that may be in use at a time


class Budget(TorchFunctionMode):
    """Ends a step that takes more than it may. On the meta device that costs no memory, and little time.

    Args:
        step: What takes them, for the message.
        operations: How many it may take.
        size: How many bytes of results may be in use at a time.

    Attributes:
        peak: Most bytes of results that were in use at a time.
    """

    def __init__(self, step: str, operations: int, size: int) -> None:
        super().__init__()
        self.step, self.operations, self.size = step, operations, size
        self.peak = 0
        self._done = self._live = 0
        self._users: Counter[int] = Counter()  # tensors by their memory

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count an operation and what it gives."""
        output = func(*args, **(kwargs or {}))
        tensors = list(_tensors(output))
        self._done += len(tensors) > 0  # others may be what sets torch back to how it was before the step
        if self._done > self.operations and tensors:
            raise ModelError(f"{self.step} takes more than {self.operations} operations.")
        known = {tensor.untyped_storage()._cdata for tensor in _tensors(args)}
        for tensor in tensors:
            self._use(tensor, known)
        return output

    def _use(self, tensor: Tensor, known: set[int]) -> None:
        storage = tensor.untyped_storage()
        memory, size = storage._cdata, storage.nbytes()
        if memory in known and memory not in self._users:
            return  # it was there before
        if not self._users[memory]:
            self._live += size
            self.peak = max(self.peak, self._live)
            if self._live > self.size:
                raise ModelError(f"{self.step} takes more than {self.size} bytes at a time.")
        self._users[memory] += 1
        weakref.finalize(tensor, self._release, memory, size).atexit = False

    def _release(self, memory: int, size: int) -> None:
        self._users[memory] -= 1
        if not self._users[memory]:
            del self._users[memory]
            self._live -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    for each in value if isinstance(value, tuple | list) else (value,):
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, tuple | list):
            yield from _tensors(each)
