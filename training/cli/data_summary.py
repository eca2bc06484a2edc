"""What a network sees of its data, told before it is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dubio.models import InputSpec
from dubio.training.cli.messages import warn
from dubio.training.data.module import TensorDataModule

SHOWN = 10  # names in a line
_LENGTH = 40  # of a name


def show(data: TensorDataModule) -> None:
    """Print what the network sees, and warn of what is odd about it."""
    Console().print(table(data))
    for doubt in data.load().doubts:
        warn(doubt)


def table(data: TensorDataModule) -> Table:
    """A few lines that say which inputs there are, what is left out, and what is to be predicted."""
    dataset = data.load()
    sizes = {name: len(dataset.labels(name)) for name in dataset.splits if len(dataset.labels(name))}
    labels = np.concatenate([dataset.labels(name) for name in dataset.splits])
    counts = np.bincount(labels, minlength=len(dataset.classes)).tolist()
    given = {role: list(names) for role, names in dataset.roles.items() if names}
    target = "".join(f"{_cut(name)}: " for name in given.pop("target", []))
    lines = Table(title=f"what the network sees of {escape(data.title)}", show_header=False)
    lines.title_justify, lines.title_style = "left", "bold"
    lines.add_column(style="cyan", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("rows", f"{sum(sizes.values())}: {', '.join(f'{name} {size}' for name, size in sizes.items())}")
    for kind, told in _inputs(dataset.input).items():
        lines.add_row(kind, escape(told))
    for role, names in given.items():
        lines.add_row(role, escape(_some(list(map(_cut, names)))))
    classes = [f"{_cut(name)} ({count})" for name, count in zip(dataset.classes, counts, strict=True)]
    if target:
        lines.add_row("target", escape(f"{target}{len(classes)} classes, {_some(classes)}"))
    else:
        lines.add_row("classes", escape(f"{len(classes)}: {_some(classes)}"))
    return lines


def _inputs(spec: InputSpec) -> dict[str, str]:
    """What one input is, by kind."""
    if spec.columns is not None:
        numeric = [_cut(column.name) for column in spec.columns if column.kind == "numeric"]
        categorical = [
            f"{_cut(column.name)} ({len(column.categories)})" for column in spec.columns if column.kind == "categorical"
        ]
        kinds = {"numeric": numeric, "categorical": categorical}
        return {kind: f"{len(names)}: {_some(names)}" for kind, names in kinds.items() if names}
    if spec.tokenizer is not None:
        words = spec.tokenizer
        case = "capitals count as small letters" if words.lowercase else "capitals count"
        return {
            "tokens": f"the first {words.length} of a text; {len(words.vocabulary)} are known ({words.kind}), {case}"
        }
    shape = " x ".join(map(str, spec.shape))
    if spec.kind == "image":
        files = "" if spec.files is None or spec.files.resize is None else ", to which files of other sizes are resized"
        return {"images": f"{shape} (channels, height, width){files}"}
    return {"numbers": f"{shape} a row"}


def _some(names: Sequence[str]) -> str:
    others = len(names) - SHOWN
    more = f" and {others} {'other' if others == 1 else 'others'}" if others > 0 else ""
    return ", ".join(names[:SHOWN]) + more


def _cut(name: str) -> str:
    return name if len(name) <= _LENGTH else f"{name[:_LENGTH]}..."
