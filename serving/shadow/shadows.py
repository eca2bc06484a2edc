"""The shadows of this service: found beside the models, offered what is answered, promoted or put away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dubio.models import Prediction
from dubio.serving.errors import LoadFailed, PromotionRefused, StoreUnavailable, UnknownModel, UnknownShadow
from dubio.serving.repository.directory import ModelDirectory
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.repository.source import ModelSource
from dubio.serving.shadow.comparison import Pair
from dubio.serving.shadow.evidence import Evidence
from dubio.serving.shadow.shadow import Shadow, Standing
from dubio.serving.store.accuracy import Accuracy
from dubio.serving.store.drawn import Drawn

_log = logging.getLogger("dubio")

_NO_STORE = "There is no store, so that no true label reaches the rows; start the service with --store."
_NO_LABEL = "No row of the store that both answered has a true label; send some to /v1/feedback."


class Shadows:
    """At most one shadow a model: the highest version that lies in a folder such as `<name>/3.shadow`.

    It is compared with the newest version that is served. What a shadow does, or fails to do, changes no answer.

    Args:
        repository: The models that are served.
        root: Directory of models.
        start: Starts a shadow of a model.
        accuracy: Gives what true labels say about a pair, if there is a store.
    """

    def __init__(
        self,
        repository: ModelRepository,
        root: Path,
        start: Callable[[ServedModel, ModelSource], Shadow],
        accuracy: Callable[[Pair], Awaitable[Accuracy]] | None = None,
    ) -> None:
        self._accuracy = accuracy
        self._repository, self._directory, self._start = repository, ModelDirectory(root), start
        self._running: dict[str, Shadow] = {}
        self._closed = self._told = False
        repository.changed = self.reconcile

    def reconcile(self) -> None:
        """Start shadows that are new or changed, and put away those that are gone. For one thread at a time."""
        try:
            self._reconcile()
        except Exception:  # whatever it is, what serves goes on
            _log.exception("Cannot look for shadows.")

    def _reconcile(self) -> None:
        if self._closed:
            return
        try:
            found = self._directory.shadows()
        except OSError:  # as is told when models are looked for; more likely not mounted than empty
            return
        newest = {model.name: model for model in self._repository if model.name not in self._repository.named}
        for name, shadow in list(self._running.items()):
            source = found.get(name)
            same = source is not None and (source, source.stamp()) == (shadow.source, shadow.stamp)
            if not same or newest.get(name) is not shadow.live:
                del self._running[name]
                shadow.close()
        for name, source in found.items():
            if name in newest and name not in self._running and source.stamp() is not None:
                self._running[name] = self._start(newest[name], source)

    def offer(
        self,
        model: ServedModel,
        inputs: NDArray[np.float32],
        prediction: Prediction,
        seconds: float,
        drawn: Drawn | None = None,
    ) -> None:
        """A request for a model, rows of which may be drawn, was answered by all its members, after so many seconds."""
        shadow = self._running.get(model.name)
        if shadow is None or shadow.live is not model:
            return
        try:
            shadow.offer(inputs, prediction, seconds, drawn)
        except Exception:  # whatever it is, the answer goes out
            if not self._told:
                self._told = True
                _log.exception("Cannot give a request to a shadow.")

    def keys(self) -> list[tuple[str, str]]:
        """List name and version of each shadow."""
        return [shadow.source.key for shadow in list(self._running.values())]

    def get(self, name: str) -> Shadow:
        """The shadow of a model.

        Raises:
            UnknownShadow: It has none.
        """
        try:
            return self._running[name]
        except KeyError:
            raise UnknownShadow(
                f"Expected a model with a shadow, but {name[:100]!r} has none; put the checkpoint into a folder such "
                f"as {name[:100]}/2.shadow of the model repository, and have the model loaded again."
            ) from None

    async def evidence(self, shadow: Shadow) -> Evidence | None:
        """What is known about a shadow; None until it is loaded."""
        comparison = await asyncio.to_thread(shadow.compare)
        if comparison is None:
            return None
        if self._accuracy is None:
            return Evidence(comparison, None, _NO_STORE)
        try:
            accuracy = await self._accuracy(comparison.pair)
        except StoreUnavailable as error:
            return Evidence(comparison, Accuracy.begin(comparison.pair.margin, comparison.pair.epsilon), str(error))
        return Evidence(comparison, accuracy, None if accuracy.rows else _NO_LABEL)

    async def promote(self, name: str, *, force: bool) -> str:
        """Let a shadow take over, as a new version does; gives its version.

        Args:
            name: Of the model.
            force: Whether to do so although the evidence is missing.

        Raises:
            UnknownShadow: There is none.
            PromotionRefused: It is not known to be good enough, or its folder cannot be renamed.
            LoadFailed: It cannot be served.
        """
        shadow = self.get(name)
        evidence = await self.evidence(shadow)
        if not force:
            _require(shadow, evidence)
            if shadow.source.stamp() != shadow.stamp:
                raise PromotionRefused(
                    f"Expected the files of version {shadow.source.version} that were compared, but they have changed "
                    "since; let the service look for versions again, and compare anew."
                )
        version, folder = shadow.source.version, shadow.source.path.parent
        target = folder.with_name(version)
        if int(version) <= int(shadow.live.version):
            raise PromotionRefused(
                f"Expected a shadow of a higher version than {shadow.live.version}, which answers, but got {version}: "
                "the highest version answers; rename its folder."
            )
        _rename(folder, target)
        failure: Exception | None = None
        try:
            await self._repository.load_model(name)
        except (LoadFailed, UnknownModel) as error:  # of this version, or of another one
            failure = error
        if all(model.version != version for model in self._repository.all_versions(name)):
            _rename(target, folder)
            await asyncio.to_thread(self.reconcile)
            raise failure or LoadFailed(f"Failed to load {name!r}, version {version}; the log says why.")
        known = (
            "nothing is known"
            if evidence is None
            else f"e-value {evidence.e_value:.3g}, {evidence.comparison.rows} rows"
        )
        _log.warning(
            "Promoted model %s version %s by request of an administrator%s (%s).",
            name,
            version,
            ", by force" if force else "",
            known,
        )
        return version

    def close(self) -> None:
        """End all."""
        self._closed = True
        for shadow in self._running.values():
            shadow.close()


def _require(shadow: Shadow, evidence: Evidence | None) -> None:
    """Refuse what is not known to be good enough."""
    if evidence is None or shadow.standing is not Standing.RUNNING:
        why = f"has ended: {shadow.reason}" if shadow.standing is Standing.ENDED else "is still being loaded"
        raise PromotionRefused(f"Expected a shadow that runs, but it {why}; wait, mend it, or use force.")
    if not evidence.reached:
        known, accuracy = evidence.comparison, evidence.accuracy
        told = (
            ""
            if accuracy is None
            else f", of {accuracy.rows} with a true label {accuracy.live} right before and {accuracy.shadow} now"
        )
        raise PromotionRefused(
            f"Expected evidence of {evidence.level:g} that neither accuracy nor flags are worse by "
            f"{known.pair.margin:.1%} of the rows, but after {known.rows} rows it is {evidence.e_value:.3g} "
            f"({known.disagreements} labels changed, {known.newly_flagged} of {known.judged} newly flagged{told}); "
            f"wait for more rows{'' if accuracy is None else ', send true labels to /v1/feedback'}, or use force."
        )


def _rename(folder: Path, target: Path) -> None:
    try:
        if target.exists():
            raise PromotionRefused(
                f"Expected no folder {target.name} beside {folder.name}, but there is one; remove it."
            )
        folder.rename(target)
    except OSError as error:
        raise PromotionRefused(
            f"Expected to rename {folder.name} to {target.name} in the model repository, but: {error.strerror}; rename "
            "it yourself, and have the model loaded again."
        ) from error
