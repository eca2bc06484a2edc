"""Predictors to files and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from dubio.models import registry
from dubio.models import weights as foreign
from dubio.models.budget import MAX_LIVE, Budget
from dubio.models.checkpoint import data_record, file
from dubio.models.checkpoint.data_record import Division
from dubio.models.checkpoint.file import Checkpoint
from dubio.models.checkpoint.schema import FORMAT_VERSION, KEY, Answers, Metadata
from dubio.models.checkpoint.state_dict import sha256
from dubio.models.device import usable
from dubio.models.errors import ModelError, NotEnoughMemory, UnreadableCheckpoint
from dubio.models.inputs import encoding
from dubio.models.inputs.spec import InputSpec
from dubio.models.memory import exhausted
from dubio.models.predictor import Predictor
from dubio.models.spec import CommitteeSpec, Provenance, SiteSpec
from dubio.models.trial import Limits, tried
from dubio.uncertainty import Calibration
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.detection.serialization import (
    dump,
    dump_detector,
    dump_promises,
    dump_stopping,
    load_detector,
    load_promises,
    load_stopping,
)
from dubio.uncertainty.detection.serialization import load as load_state
from dubio.uncertainty.dropout.probe import SiteRecorder
from dubio.uncertainty.errors import NotFitted

MAX_BANK = 2**28  # numbers in the masks of all members: 1 GiB in float32
MAX_ROW = 2**28  # bytes of the largest intermediate result for one input: 256 MiB
MAX_OPERATIONS = 2**18  # of one pass: a recurrent network takes some for each step of an input


def load(
    path: str | Path,
    *,
    device: str = "cpu",
    trusted: Sequence[str] = (),
    strategy: str | None = None,
    measure_seconds: float = 2.0,
    trial: Limits | bool = True,
    network: foreign.Network | None = None,
    input: InputSpec | None = None,
    classes: Sequence[str] | None = None,
    num_samples: int = 64,
    seed: int = 0,
) -> Predictor:
    """Load a calibrated checkpoint without running anything that it names; or weights that were trained elsewhere.

    Args:
        path: Of the file.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        trusted: Module prefixes whose classes the file may name beside the registry's.
        strategy: How members are run, see `dubio.uncertainty.Committee`; by default found by measuring.
        measure_seconds: What finding it may take.
        trial: Limits of a trial load in a process of its own, on the CPU, which goes before; by default those of
            `Limits.of_environment`. With ``False`` there is none.
        network: Where the file holds weights alone, a state dict or safetensors: which network they are of. The
            predictor then gives both answers and no flag, for it is not calibrated.
        input: What one input of that network is.
        classes: Its classes, in the order of the logits.
        num_samples: Members of its committee.
        seed: Of their masks.

    Raises:
        UnreadableCheckpoint: If the file is missing, damaged or refused, its parts do not belong together, or its trial
            took more than it may.
        UnusableDevice: If networks cannot run on the device.
        NotEnoughMemory: If there is no memory left for the model.
        TrialUnavailable: If it cannot be tried.
    """
    place = usable(device)  # a device that is not there is not the file's fault
    limits = Limits.of_environment() if trial is True else trial or None
    read: Callable[[], Predictor]
    if network is None:
        what: Literal["load", "read"] = "load"
        read = partial(_load, path, place, trusted, strategy, measure_seconds)
    else:
        what = "read"  # the network is code of the caller's own
        given = (network, input, classes, num_samples, seed, trusted, strategy, measure_seconds)
        read = partial(foreign.predictor, path, place, *given)
    if limits is None:
        return read()
    with tried(path, limits, what, trusted, strategy):
        return read()


def _load(
    path: str | Path, device: torch.device, trusted: Sequence[str], strategy: str | None, measure_seconds: float
) -> Predictor:
    try:
        return _assemble(file.read(path), device, trusted, strategy, measure_seconds)
    except Exception as error:
        if (cause := exhausted(error)) is not None:  # and neither is memory
            raise NotEnoughMemory(path, cause) from error
        if isinstance(error, UnreadableCheckpoint) or not isinstance(error, ModelError):
            raise
        raise UnreadableCheckpoint(path, str(error)) from error


def save(
    predictor: Predictor, source: str | Path | None, destination: str | Path, divisions: Sequence[Division] = ()
) -> None:
    """Write a Lightning checkpoint with the calibrated predictor beside the weights.

    Args:
        predictor: Calibrated, with provenance.
        source: Lightning checkpoint that holds the predictor's weights; everything else in it is kept. Without one
            the file holds the weights alone: it can be served and tested, but no fit can go on from it.
        destination: May be ``source``.
        divisions: Which rows it was trained and calibrated on.

    Raises:
        NotFitted: If the predictor is not calibrated.
        UnreadableCheckpoint: If the source cannot be read, or holds other weights.
    """
    detector, stopping, provenance = predictor.detector, predictor.stopping, predictor.provenance
    if detector is None or detector.calibration is None or stopping is None or provenance is None:
        raise NotFitted("Expected a calibrated predictor with provenance; run the calibration first.")
    content = _weights_alone(predictor, provenance) if source is None else file.read_content(source)
    held = predictor.network.state_dict() if source is None else file.network_weights(source, content)
    if sha256(held) != provenance.weights_sha256:
        where = destination if source is None else source
        raise UnreadableCheckpoint(where, "holds other weights than the predictor was calibrated with.")
    metadata = Metadata(
        format_version=FORMAT_VERSION,
        network=predictor.network_spec,
        input=predictor.input,
        classes=list(predictor.classes),
        temperature=predictor.temperature,
        committee=_committee_spec(predictor),
        detector=dump_detector(detector),
        calibration=dump(detector.calibration),
        provenance=provenance,
        auto=dump_stopping(stopping),
        divisions=list(divisions),
        answers=_dump_answers(predictor.promises, predictor.auto_promises),
        explanation=predictor.explaining,
    )
    content.pop(data_record.KEY, None)  # the same is in the metadata
    file.write({**content, KEY: metadata.model_dump()}, destination)


def _dump_answers(promises: AnswerPromises | None, auto: AnswerPromises | None) -> Answers | None:
    return None if promises is None or auto is None else Answers(all=dump_promises(promises), auto=dump_promises(auto))


def _load_answers(answers: Answers | None, who: str, flag: Calibration | None, classes: int) -> AnswerPromises | None:
    if answers is None or flag is None:
        return None
    return load_promises(getattr(answers, who), flag, classes, f"{KEY}.answers.{who}")


def _weights_alone(predictor: Predictor, provenance: Provenance) -> dict[str, object]:
    state = {f"{file.PREFIX}{name}": tensor.cpu() for name, tensor in predictor.network.state_dict().items()}
    content: dict[str, object] = {"state_dict": state}
    if "pytorch-lightning" in provenance.versions:  # which reads no file that does not say it
        content["pytorch-lightning_version"] = provenance.versions["pytorch-lightning"]
    return content


def _assemble(
    read: Checkpoint, device: torch.device, trusted: Sequence[str], strategy: str | None, measure_seconds: float
) -> Predictor:
    metadata, committee = read.metadata, read.metadata.committee
    digest = sha256(read.weights)
    if digest != metadata.provenance.weights_sha256:
        raise ModelError(
            f"field `{KEY}.provenance.weights_sha256`: the weights in the file have the SHA-256 {digest}, so they are "
            "not the ones that were calibrated; calibrate again."
        )
    with _blame("calibration"):
        calibration = load_state(Calibration, metadata.calibration, f"{KEY}.calibration")
    with _blame("detector"):
        detector = replace(load_detector(metadata.detector, f"{KEY}.detector"), calibration=calibration).to(device)
    with _blame("auto"):
        stopping = load_stopping(metadata.auto, detector, f"{KEY}.auto").to(device)
    with _blame("answers, calibration or auto"):
        flags = {"all": calibration, "auto": stopping.calibration}
        promises = [_load_answers(metadata.answers, who, flag, len(metadata.classes)) for who, flag in flags.items()]
    with _blame("network or input"):
        outline = registry.outline(metadata.network, read.weights, trusted)
        if metadata.network.class_path in registry.NETWORKS:  # code that the operator trusts sets its own bounds
            check_cost(outline, metadata.input, committee)
        network = registry.build(metadata.network, read.weights, trusted).to(device)
    with _blame("network, input, classes or committee"):
        predictor = Predictor.build(
            network,
            metadata.network,
            metadata.input,
            tuple(metadata.classes),
            num_samples=committee.num_samples,
            seed=committee.seed,
            sites=committee.mc_sites,
            rates=committee.mc_rates,
            strategy=strategy,
            measure_seconds=measure_seconds,
        )
    if _committee_spec(predictor) != committee:
        raise ModelError(
            f"field `{KEY}.committee`: the committee that this network and seed {committee.seed} give has other sites "
            "or another fingerprint than the one that was calibrated, so its promise would not hold; calibrate again."
        )
    if stopping.committee != committee.num_samples:
        raise ModelError(
            f"field `{KEY}.auto.committee`: expected the committee's {committee.num_samples} members, but got "
            f"{stopping.committee}; calibrate again."
        )
    everybody, auto = (each and each.to(device) for each in promises)
    calibrated = predictor.calibrated(
        metadata.temperature, detector, metadata.provenance, stopping, everybody, auto, metadata.explanation
    )
    if metadata.explanation is not None:
        with _blame("explanation"):
            metadata.explanation.check(detector, metadata.input)
    # One prediction: a detector that was fitted to another network's features shows here, not in a request.
    with _blame("detector, input or temperature"):
        noise = encoding.noise(predictor.input, 1)
        calibrated.explain(noise, calibrated.predict(noise))
    return calibrated


@contextmanager
def _blame(fields: str) -> Iterator[None]:
    """Name the fields that a step reads. A hostile file can break a step with an exception of any type."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"field `{KEY}`, {fields}: {str(error)[:1000] or type(error).__name__}") from error


def _committee_spec(predictor: Predictor) -> CommitteeSpec:
    committee = predictor.committee
    return CommitteeSpec(
        num_samples=committee.num_samples,
        seed=committee.seed,
        sites=[SiteSpec(kind=site.kind, p=site.p, shape=list(site.shape)) for site in committee.sites],
        fingerprint=committee.fingerprint,
        mc_sites=None if committee.selection.sites is None else list(committee.selection.sites),
        mc_rates=dict(committee.selection.rates) or None,
    )


def check_cost(outline: nn.Module, input_spec: InputSpec, committee: CommitteeSpec) -> None:
    """Refuse what would fill the memory, or take for ever, although the file is small: huge images, many time steps, or
    many masks of many units.

    Args:
        outline: The network in eval mode on the meta device, where a pass computes shapes alone.
        input_spec: What one input is.
        committee: How many members there would be.

    Raises:
        ModelError: If an intermediate result or the masks would be too large.
        RuntimeError: If the network does not take such inputs.
    """
    blank = encoding.blank(input_spec, device="meta")
    with torch.inference_mode(), Budget("one input", MAX_OPERATIONS, MAX_LIVE):
        outline(blank)
    recorder = SiteRecorder(outline)
    with torch.inference_mode(), recorder:
        outline(blank)
    if recorder.largest_output > MAX_ROW:
        raise ModelError(
            f"one input would take {recorder.largest_output} bytes in the network; at most {MAX_ROW} are allowed."
        )
    bank = committee.num_samples * recorder.mask_numel
    if bank > MAX_BANK:
        raise ModelError(
            f"the masks of {committee.num_samples} members would hold {bank} numbers; at most {MAX_BANK} are allowed."
        )
