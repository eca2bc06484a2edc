"""The unpickler: reads plain data and tensors, and knows nothing else.

Python's own calls whatever a file names, and some of what it does for a few bytes takes gigabytes or hours: copies of a
dict, keys of one hash, a list of itself. Here a name stands for one of the functions below, everything is counted, and
what a description takes is linear in its length.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dubio.models.checkpoint.archive import Archive

MAX_STEPS = 2**21  # of a description: twice the values that metadata may have
MAX_VALUES = 2**21  # in all, shared ones counted every time
MAX_CONTAINERS = 2**18  # lists, dicts and tuples; a tensor has six of its own
MAX_TENSORS = 2**15
MAX_DEPTH = 200
MAX_AXES = 16
MAX_KEY = 2**31  # of a dict, where it is no string: larger numbers can be made to share a hash

_STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
_TYPES = [
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"),
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
]
_CONTAINERS = (list, dict, OrderedDict, tuple)


class Refused(ValueError):
    """What a file describes is more than plain data and tensors, or more than a file may describe."""


class _Function:
    """What a name in a file stands for."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class _Storage:
    """The bytes of an entry, and the type of their numbers."""

    def __init__(self, held: torch.UntypedStorage, dtype: torch.dtype) -> None:
        self.held, self.dtype = held, dtype


def load(archive: Archive) -> object:
    """The content of a checkpoint.

    Raises:
        Refused: If it is more than plain data and tensors, or too much.
        ValueError: If its description is damaged, or one of several other types.
    """
    return _Unpickler(archive).run()


class _Unpickler:
    def __init__(self, archive: Archive) -> None:
        self._archive, self._data = archive, archive.pickled
        self._at = 0
        self._stack: list[Any] = []
        self._frames: list[list[Any]] = []  # below each mark
        self._memo: dict[int, Any] = {}
        self._unfinished: set[int] = set()  # ids of what may still be filled: nothing holds it yet, not even itself
        self._extents: dict[int, tuple[int, int]] = {}  # how many values each container has, and how deep
        self._storages: dict[str, torch.UntypedStorage] = {}
        self._containers, self._tensors, self._copied = MAX_CONTAINERS, MAX_TENSORS, MAX_VALUES
        self._names: dict[str, object] = {
            "collections OrderedDict": _Function(self._ordered),
            "collections Counter": _Function(self._counter),
            "builtins complex": _Function(_complex),
            "__builtin__ complex": _Function(_complex),
            "torch Size": _Function(self._size),
            "torch device": _Function(_device),
            "torch._utils _rebuild_tensor_v2": _Function(self._tensor),
            "torch._utils _rebuild_parameter": _Function(self._parameter),
            **{f"torch {name}Storage": dtype for name, dtype in _STORAGES.items()},
            **{f"torch {name}": getattr(torch, name) for name in _TYPES},
        }
        self._steps: dict[bytes, Callable[[], None]] = {
            pickle.MARK: self._mark,
            pickle.GLOBAL: self._global,
            pickle.REDUCE: self._reduce,
            pickle.BUILD: self._build,
            pickle.BINPERSID: self._persistent,
            pickle.EMPTY_DICT: lambda: self._push(self._new({})),
            pickle.EMPTY_LIST: lambda: self._push(self._new([])),
            pickle.EMPTY_TUPLE: lambda: self._push(self._measured(())),
            pickle.TUPLE: lambda: self._push(self._measured(tuple(self._since_mark()))),
            pickle.TUPLE1: lambda: self._tuple(1),
            pickle.TUPLE2: lambda: self._tuple(2),
            pickle.TUPLE3: lambda: self._tuple(3),
            pickle.APPEND: lambda: self._append([self._stack.pop()]),
            pickle.APPENDS: lambda: self._append(self._since_mark()),
            pickle.SETITEM: lambda: self._set([self._stack.pop(-2), self._stack.pop()]),
            pickle.SETITEMS: lambda: self._set(self._since_mark()),
            pickle.NONE: lambda: self._push(None),
            pickle.NEWTRUE: lambda: self._push(True),
            pickle.NEWFALSE: lambda: self._push(False),
            pickle.BININT: lambda: self._push(self._unpack("<i", 4)),
            pickle.BININT1: lambda: self._push(self._unpack("<B", 1)),
            pickle.BININT2: lambda: self._push(self._unpack("<H", 2)),
            pickle.BINFLOAT: lambda: self._push(self._unpack(">d", 8)),
            pickle.LONG1: lambda: self._push(int.from_bytes(self._take(self._unpack("<B", 1)), "little", signed=True)),
            pickle.BINUNICODE: lambda: self._push(self._take(self._unpack("<I", 4)).decode()),
            pickle.BINPUT: lambda: self._remember(self._unpack("<B", 1)),
            pickle.LONG_BINPUT: lambda: self._remember(self._unpack("<I", 4)),
            pickle.BINGET: lambda: self._recall(self._unpack("<B", 1)),
            pickle.LONG_BINGET: lambda: self._recall(self._unpack("<I", 4)),
        }

    def run(self) -> object:
        if self._take(2) != pickle.PROTO + b"\x02":
            raise Refused("expected a description in version 2 of pickle, which torch.save writes")
        for _ in range(MAX_STEPS):
            code = self._take(1)
            if code == pickle.STOP:
                return self._result()
            if code not in self._steps:
                raise Refused(f"torch.save never writes the instruction {code!r}")
            self._steps[code]()
        raise Refused(f"the description has more than {MAX_STEPS} steps")

    def _result(self) -> object:
        (value,) = self._stack
        self._measured((value,))
        if self._frames:
            raise Refused("the description ends within a list")
        return value

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise Refused("the description is cut short")
        self._at += count
        return taken

    def _unpack(self, layout: str, size: int) -> Any:
        return struct.unpack(layout, self._take(size))[0]

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _mark(self) -> None:
        self._frames.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._frames.pop()
        return items

    def _remember(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _recall(self, key: int) -> None:
        self._push(self._memo[key])

    def _new(self, container: Any) -> Any:
        """A list or a dict to be filled."""
        self._count_container(container)
        self._unfinished.add(id(container))
        return container

    def _count_container(self, container: Any) -> None:
        self._containers -= 1
        if self._containers < 0:
            raise Refused(f"there are more than {MAX_CONTAINERS} lists, dicts and tuples")
        self._extents[id(container)] = 1, 1

    def _tuple(self, count: int) -> None:
        items = self._stack[-count:]
        if len(items) < count:
            raise Refused("the description is damaged")
        del self._stack[-count:]
        self._push(self._measured(tuple(items)))

    def _measured(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        self._count_container(items)
        self._fill(items, items)
        return items

    def _fill(self, container: Any, values: Iterable[Any]) -> None:
        """Counts what a container is given, and finishes it."""
        count, depth = self._extents[id(container)]
        for value in values:
            if value is container:
                raise Refused("a list or a dict holds itself")
            if type(value) in _CONTAINERS:
                self._unfinished.discard(id(value))
                own, deep = self._extents[id(value)]
                count, depth = count + own, max(depth, deep + 1)
            else:
                if type(value) is _Function:
                    raise Refused("a function is not plain data")
                count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise Refused(f"there are more than {MAX_VALUES} values, or they are more than {MAX_DEPTH} deep")
        self._extents[id(container)] = count, depth

    def _target(self, *types: type) -> Any:
        target = self._stack[-1]
        if type(target) not in types or id(target) not in self._unfinished:
            raise Refused("something is added to what is no list or dict that is being read")
        return target

    def _append(self, items: list[Any]) -> None:
        target = self._target(list)
        self._fill(target, items)
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._target(dict, OrderedDict)
        keys, values = items[::2], items[1::2]
        for key in keys:
            if type(key) is not str and not (type(key) is int and -MAX_KEY <= key < MAX_KEY):
                raise Refused(f"the keys of a dict should be names or numbers of 32 bits, but one is a {_say(key)}")
        self._fill(target, values)
        target.update(zip(keys, values, strict=True))

    def _build(self) -> None:
        """Gives a state dict the versions of its modules; nothing else has attributes."""
        state = self._stack.pop()
        target = self._target(OrderedDict)
        versions = state.get("_metadata") if type(state) is dict and len(state) == 1 else None
        if not isinstance(versions, dict) or not all(isinstance(each, dict) for each in versions.values()):
            raise Refused("plain data have no attributes")
        self._fill(target, [state])
        target._metadata = versions

    def _global(self) -> None:
        lines = []
        for _ in range(2):
            end = self._data.find(b"\n", self._at, self._at + 256)
            lines.append(self._take(max(end, self._at) - self._at if end >= 0 else len(self._data)).decode())
            self._at += 1
        name = " ".join(lines)
        if name not in self._names:
            shown = ascii(name.replace(" ", "."))[1:-1][:200]
            raise Refused(
                f"names `{shown}`, which is neither plain data nor a dense tensor; nothing was run. Save the file "
                "without that object."
            )
        self._push(self._names[name])

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Function or type(arguments) is not tuple:
            raise Refused("something is called that is no function")
        self._push(function.call(*arguments))

    def _persistent(self) -> None:
        kind, dtype, key, _, count = self._stack.pop()
        if kind != "storage" or type(dtype) is not torch.dtype or type(key) is not str or type(count) is not int:
            raise Refused("something else than the bytes of a tensor is looked for")
        if key not in self._storages:
            self._storages[key] = self._archive.storage(key)
        held = self._storages[key]
        if held.nbytes() != count * dtype.itemsize:
            raise Refused(f"the file has {held.nbytes()} bytes for a tensor of {count} numbers")
        self._push(_Storage(held, dtype))

    def _ordered(self) -> object:
        return self._new(OrderedDict())

    def _counter(self, counted: Any) -> object:
        self._copy(counted.values())
        return Counter(counted)

    def _size(self, sizes: Any) -> object:
        self._copy(sizes)
        return torch.Size(sizes)

    def _copy(self, numbers: Any) -> None:
        """Counts what is copied: five bytes are enough to have anything copied once more."""
        self._copied -= len(numbers) + 1
        if self._copied < 0 or any(type(each) is not int for each in numbers):
            raise Refused(f"more than {MAX_VALUES} values are copied, or what is counted is no number")

    def _tensor(self, storage: Any, offset: int, sizes: Any, strides: Any, requires_grad: bool, hooks: Any) -> Tensor:
        self._count_tensor(hooks)
        whole = all(type(each) is int and 0 <= each < 2**63 for each in (offset, *sizes, *strides))
        if type(storage) is not _Storage or not whole or not len(sizes) == len(strides) <= MAX_AXES:
            raise Refused("a tensor is not described as torch.save does")
        held = storage.held.nbytes() // storage.dtype.itemsize
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if math.prod(sizes) and last >= held:
            raise Refused("a tensor lies beyond the bytes that the file has for it")
        if math.prod(sizes) > held:  # a stride of 0 turns four bytes into a matrix of any size
            claimed = math.prod(sizes) * storage.dtype.itemsize
            raise Refused(
                f"a tensor claims {claimed} bytes, but the file has {storage.held.nbytes()} for it; save a `clone()`"
            )
        empty = torch.empty(0, dtype=storage.dtype)
        return empty.set_(storage.held, offset, sizes, strides).requires_grad_(bool(requires_grad))

    def _parameter(self, tensor: Any, requires_grad: bool, hooks: Any) -> Tensor:
        self._count_tensor(hooks)
        return nn.Parameter(tensor, requires_grad=bool(requires_grad))

    def _count_tensor(self, hooks: Any) -> None:
        self._tensors -= 1
        if self._tensors < 0 or hooks:
            raise Refused(f"there are more than {MAX_TENSORS} tensors, or they have hooks")


def _complex(real: float, imaginary: float) -> complex:
    return complex(float(real), float(imaginary))


def _device(*parts: Any) -> torch.device:
    if len(parts) > 2 or any(len(str(part)) > 32 for part in parts):
        raise Refused("a device has a longer name than any has")
    return torch.device(*parts)


def _say(key: object) -> str:
    return "larger number" if type(key) is int else type(key).__name__.strip("_")
