"""The models of this service: from checkpoints on disk to predictors that passed a self-test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch

import models
from models import Predictor
from serving.errors import InvalidModelSource, NotReady, UnknownModel, UnusableDevice
from serving.selftest import check

# A name is part of a URL, so it must be one path segment and never need quoting; dots alone would climb.
_NAME = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,100}\Z")


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint and the name it is served under."""

    name: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> ModelSource:
        """Read `name=path`, or `path` alone.

        Without a name, `runs/digits_mlp/model.ckpt` is called `digits_mlp`; any other file goes by its stem.

        Raises:
            InvalidModelSource: the name could not be part of a URL, or the path is empty.
        """
        name, equals, rest = text.partition("=")
        if not equals or "/" in name:  # a path may itself contain '='
            path = Path(text)
            name = path.absolute().parent.name if path.name == "model.ckpt" else path.stem
        else:
            path = Path(rest)
        if not _NAME.match(name):
            raise InvalidModelSource(
                f"Expected the name of model {text!r} to be 1 to 100 of the characters A-Z a-z 0-9 . _ - "
                f"and not dots alone, but got {name!r}; name it yourself: some-name={path}"
            )
        if path == Path():
            raise InvalidModelSource(f"Expected a checkpoint's path in {text!r}, but it is empty; write name=path.")
        return cls(name, path)


@dataclass(frozen=True)
class ServedModel:
    """A predictor that may answer requests."""

    name: str
    version: str
    predictor: Predictor


class ModelRepository:
    """Loads the named checkpoints and hands out the models by name.

    A model is visible only once it is loaded and has passed its self-test.
    """

    def __init__(self, sources: Sequence[ModelSource], *, device: str, trusted: Sequence[str]) -> None:
        """Raises InvalidModelSource when two sources share a name."""
        self._sources: dict[str, ModelSource] = {}
        for source in sources:
            if source.name in self._sources:
                raise InvalidModelSource(
                    f"Expected model names to differ, but {source.name!r} names both "
                    f"{self._sources[source.name].path} and {source.path}; give one of them another: "
                    f"{source.name}-2={source.path}"
                )
            self._sources[source.name] = source
        self._device = device
        self._trusted = tuple(trusted)
        self._models: dict[str, ServedModel] = {}

    def load(self) -> None:
        """Load every source, check it and keep it.

        Raises:
            UnusableDevice: torch cannot put a tensor on the device.
            UnreadableCheckpoint: a file is missing, damaged, hostile or not a Dubio checkpoint.
            SelfTestFailed: a model's trial predictions cannot be trusted.
        """
        _try(self._device)
        for source in self._sources.values():
            predictor = models.load(source.path, device=self._device, trusted=self._trusted)
            check(source.name, predictor)
            self._models[source.name] = ServedModel(name=source.name, version="1", predictor=predictor)

    def get(self, name: str | None = None) -> ServedModel:
        """The model of this name; the first one when `name` is None.

        Raises:
            NotReady: nothing is loaded.
            UnknownModel: no model has this name.
        """
        if not self.ready:
            raise NotReady(self.unready_reason)
        if name is None:
            return next(iter(self))
        if name not in self._models:
            near = get_close_matches(name[:100], self._models, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"loaded: {', '.join(self._models)}."
            raise UnknownModel(f"Expected `name` to be a loaded model, but got {name[:100]!r}; {hint}")
        return self._models[name]

    def __iter__(self) -> Iterator[ServedModel]:
        """The loaded models in the order they were named."""
        return iter(self._models.values())

    @property
    def ready(self) -> bool:
        """True when there is at least one model and every named one is loaded."""
        return bool(self._models) and len(self._models) == len(self._sources)

    @property
    def unready_reason(self) -> str:
        """Why `ready` is false, for whoever asks."""
        if not self._sources:
            return "No model is loaded: start the service with at least one checkpoint, or set DUBIO_MODELS."
        return f"{len(self._models)} of {len(self._sources)} models are loaded so far; try again shortly."


def _try(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown to torch, not built in, or not there
        raise UnusableDevice(
            f"Expected `device` to be one that torch can use here, such as cpu, but got {device!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
