"""From a source on disk to a model that passed its self-test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dubio import models
from dubio.models import Ensemble, Predictor, warmup
from dubio.models.batch_invariance import TRIED_ROWS
from dubio.models.device import usable
from dubio.models.errors import BatchDependent, NotEnoughMemory, TrialUnavailable, UnreadableCheckpoint
from dubio.models.memory import exhausted
from dubio.models.trial import Limits
from dubio.serving.errors import UnusableDevice
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.selftest import check
from dubio.serving.repository.snapshot import private_copy
from dubio.serving.repository.source import ModelSource
from dubio.uncertainty.precision import refuse_tf32


@dataclass(frozen=True)
class Loader:
    """Loads models onto one device.

    Attributes:
        device: Where models run, as torch names it.
        trusted: Module prefixes of networks that a checkpoint may name.
        strategy: How members are run; None to measure it.
        max_bytes: Of a checkpoint.
        trial: Limits of a checkpoint's trial; see `dubio.models.load`.
        batch_invariant: Whether the members' answers, too, are to be the same to the last bit in any batch.
    """

    device: str
    trusted: Sequence[str]
    strategy: str | None = None
    max_bytes: int = 2**32
    trial: Limits | bool = True
    batch_invariant: bool = False

    def try_device(self) -> None:
        """Put a tensor on the device, which is to multiply in the precision that the flags were calibrated in.

        Raises:
            UnusableDevice: Torch cannot, or no network runs there.
        """
        try:
            usable(self.device)
        except models.errors.UnusableDevice as error:
            raise UnusableDevice(str(error)) from error
        refuse_tf32()

    def load(self, source: ModelSource) -> ServedModel:
        """Load, check and warm up one version of a model; raises what `read` raises."""
        return ServedModel(source.name, source.version, self.read(source))

    def read(self, source: ModelSource) -> Predictor | Ensemble:
        """What answers for one version of a model, checked and warm.

        Raises:
            UnreadableCheckpoint: A file is missing, damaged, hostile, incomplete or not a Dubio checkpoint.
            MismatchedCheckpoints: Several checkpoints cannot be one ensemble.
            SelfTestFailed: The model's trial predictions cannot be trusted.
            TrialUnavailable: A file cannot be tried before it is loaded.
            NotEnoughMemory: There is none left for the model or for its trial predictions.
        """
        try:
            return self._assemble(source)
        except Exception as error:
            if (cause := exhausted(error)) is not None:
                raise NotEnoughMemory(source.path, cause) from error
            raise

    def _assemble(self, source: ModelSource) -> Predictor | Ensemble:
        predictors = [self._read(path, source.root) for path in source.paths]
        predictor = predictors[0] if len(predictors) == 1 else Ensemble.build(predictors)
        check(source.name, predictor)
        return predictor

    def _read(self, path: Path, root: Path | None) -> Predictor:
        with private_copy(path, root, self.max_bytes) as copy:
            try:
                predictor = models.load(
                    copy, device=self.device, trusted=self.trusted, strategy=self.strategy, trial=self.trial
                )
                rows = min(max(TRIED_ROWS), warmup.most_rows(predictor))
                return predictor.batch_invariant(self.batch_invariant, rows)
            except BatchDependent as error:
                raise UnreadableCheckpoint(path, f"{error} Unset `batch_invariant`.") from error
            except UnreadableCheckpoint as error:  # names the copy, which nobody knows
                raise UnreadableCheckpoint(path, error.reason) from error
            except TrialUnavailable as error:
                raise TrialUnavailable(path, error.why) from error
