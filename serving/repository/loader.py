"""From a source on disk to a model that passed its self-test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dubio import models
from dubio.models import Ensemble, Predictor
from dubio.models.errors import UnreadableCheckpoint
from dubio.serving.errors import UnusableDevice
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.selftest import check
from dubio.serving.repository.snapshot import private_copy
from dubio.serving.repository.source import ModelSource


@dataclass(frozen=True)
class Loader:
    """Loads models onto one device.

    Attributes:
        device: Where models run, as torch names it.
        trusted: Module prefixes of networks that a checkpoint may name.
        strategy: How members are run; None to measure it.
        max_bytes: Of a checkpoint.
    """

    device: str
    trusted: Sequence[str]
    strategy: str | None = None
    max_bytes: int = 2**32

    def try_device(self) -> None:
        """Put a tensor on the device.

        Raises:
            UnusableDevice: Torch cannot.
        """
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:  # unknown to torch, not built in, or not there
            raise UnusableDevice(
                f"Expected `device` to be one that torch can use here, such as cpu, but got {self.device!r}: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def load(self, source: ModelSource) -> ServedModel:
        """Load, check and warm up one version of a model.

        Raises:
            UnreadableCheckpoint: A file is missing, damaged, hostile, incomplete or not a Dubio checkpoint.
            MismatchedCheckpoints: Several checkpoints cannot be one ensemble.
            SelfTestFailed: The model's trial predictions cannot be trusted.
        """
        predictors = [self._read(path, source.root) for path in source.paths]
        predictor = predictors[0] if len(predictors) == 1 else Ensemble.build(predictors)
        check(source.name, predictor)
        return ServedModel(source.name, source.version, predictor)

    def _read(self, path: Path, root: Path | None) -> Predictor:
        with private_copy(path, root, self.max_bytes) as copy:
            try:
                return models.load(copy, device=self.device, trusted=self.trusted, strategy=self.strategy)
            except UnreadableCheckpoint as error:  # names the copy, which nobody knows
                raise UnreadableCheckpoint(path, error.reason) from error
