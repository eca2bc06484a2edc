"""Dropout sites: the places in a network where dropout acts, found without drawing a random number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout import batch_axis
from dubio.uncertainty.dropout.function_mode import Call
from dubio.uncertainty.dropout.probe import CompiledDropout, SiteRecorder
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.dropout.sites import PlannedCall, Site
from dubio.uncertainty.dropout.train_probe import TrainProbe, probe_train_mode
from dubio.uncertainty.errors import NetworkInTrainingMode, NoDropoutFound, UnsupportedNetwork, UnsupportedSite
from dubio.uncertainty.magnitude import magnitude

ALL = Selection()


@dataclass(frozen=True)
class SamplingPlan:
    """What the audit of a network gives: the dropout calls of a pass, and how each is sampled.

    Attributes:
        network: In eval mode.
        calls: The calls that a pass makes, in order.
        zero_rates: Whether calls with a rate of 0 are among them.
        num_classes: C, the number of logits an input gets.
        dtype: Of the logits.
        row_bytes: Size of the largest intermediate result for one row, in bytes.
        value_dependent: Whether values leave torch, so that one row's, or one member's, may decide for the whole batch.
        left_out: Sites that are not sampled because they were not chosen.
        notes: What else a user should know.
    """

    network: nn.Module
    calls: tuple[PlannedCall, ...]
    zero_rates: bool
    num_classes: int
    dtype: torch.dtype
    row_bytes: int
    value_dependent: bool = False
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sampled(self) -> tuple[PlannedCall, ...]:
        """The calls at which a mask is applied, in order."""
        return tuple(call for call in self.calls if call.site is not None)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that are sampled, in call order."""
        return tuple(call.site for call in self.calls if call.site is not None)


def audit(network: nn.Module, example_input: Tensor, selection: Selection = ALL) -> SamplingPlan:
    """Find the dropout sites of a network without writing to it.

    Args:
        network: In eval mode; maps ``[B, ...]`` to logits ``[B, C]``.
        example_input: ``[B, ...]`` with at least one row, of numbers or of tokens; only its first row is used.
            Where inputs differ in length, one of the longest.
        selection: Which sites to sample, and at which rates.

    Raises:
        NetworkInTrainingMode: The network or a module inside it is in train mode.
        UnsupportedNetwork: The output is not ``[B, C]``, a row's logits depend on the other rows, or the network
            writes to its input, a parameter or a buffer.
        UnsupportedSite: A site cannot be sampled faithfully, or the selection matches none.
        NoDropoutFound: There is no site with p > 0.
    """
    _check_modules(network)
    if not example_input.ndim or not len(example_input):
        raise UnsupportedNetwork(
            f"Expected `example_input` to have at least one row, but got shape {tuple(example_input.shape)}."
        )
    owned, before = _state(network)  # held, so that no other tensor takes the place of one in memory
    # Two batch sizes tell the batch axis from a feature axis that has the same length by chance, and other rows beside
    # the first tell whether rows keep to themselves.
    row = example_input[:1]
    pair, mixed = torch.cat([row, row]), torch.cat([row, *_other_rows(row)])
    logits_of_pair, two = _probe(network, pair)
    logits_of_mixed, three = _probe(network, mixed)
    if _state(network)[1] != before:
        raise UnsupportedNetwork(
            f"Expected a network that only reads in eval mode, but {type(network).__name__} writes to a parameter or "
            "buffer, so concurrent predictions would race; write under `if self.training`."
        )
    _check_calls(owned, two, three)
    _check_rows(network, logits_of_pair[0], logits_of_mixed[0])
    _check_fused(network, pair, logits_of_pair)
    probed = probe_train_mode(network, mixed, {call.name: call.p for call in two.calls})
    trained = {call.name: call.p or probed.rates.get(call.name, 0.0) for call in two.calls}
    rates = _rates(network, two, trained, probed, selection)
    zero_rates = any(call.p == 0 and call.name in rates for call in two.calls)
    both = [each for each in zip(two.calls, three.calls, strict=True) if zero_rates or each[0].p > 0]
    changed: dict[str, tuple[Call, Call]] = {}
    if any(batch_axis.merged_axis(*each) is not None for each in both):
        changed = _changed(network, row)
    return SamplingPlan(
        network,
        tuple(batch_axis.plan_call(*each, changed.get(each[0].name), rates.get(each[0].name)) for each in both),
        zero_rates,
        num_classes=logits_of_pair.shape[1],
        dtype=logits_of_pair.dtype,
        row_bytes=max(1, two.largest_output // 2),
        value_dependent=two.value_dependent or three.value_dependent,
        left_out=tuple(
            name for name in (*(name for name, p in trained.items() if p > 0), *two.compiled) if name not in rates
        ),
        notes=_notes(probed),
    )


def noise_like(x: Tensor) -> Tensor:
    """Rows from a generator of their own, so that no check depends on a degenerate example.

    Standard normal numbers; or tokens between those of the example, 0 and 1, which any vocabulary has.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    if x.is_floating_point() or x.is_complex():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    low, high = (0, 1) if x.dtype == torch.bool or not x.numel() else (min(0, int(x.min())), max(1, int(x.max())))
    return torch.randint(low, high + 1, x.shape, generator=generator).to(x.device, x.dtype)


def _other_rows(row: Tensor) -> tuple[Tensor, Tensor]:
    """A quiet row and a loud one; of tokens, other ones."""
    if row.is_floating_point() or row.is_complex():
        return torch.zeros_like(row), torch.full_like(row, 100)
    return noise_like(row), torch.ones_like(row)


def _probe(network: nn.Module, x: Tensor) -> tuple[Tensor, SiteRecorder]:
    recorder = SiteRecorder(network)
    with torch.inference_mode(mode=False):
        x = x.clone()  # a tensor made in inference mode would not count the writes into it
    version = x._version
    with torch.inference_mode(), CompiledDropout(recorder), recorder:
        logits = network(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        returned = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        cure = " Return its `logits`: dubio.models.SequenceClassifier does." if hasattr(logits, "logits") else ""
        raise UnsupportedNetwork(
            f"Expected logits of shape [B, C] for B = {len(x)} rows of shape {tuple(x.shape[1:])}, "
            f"but {type(network).__name__} returned {returned}.{cure}"
        )
    if x._version > version:
        raise UnsupportedNetwork(
            f"Expected a network that leaves its input alone, but {type(network).__name__} writes into it, so the "
            "members would not see the same input; copy the input first or use inplace=False."
        )
    return logits, recorder


def _changed(network: nn.Module, row: Tensor) -> dict[str, tuple[Call, Call]]:
    """Each call, by name, in two batches of three rows that differ in the second one alone."""
    first, second, third = noise_like(row.expand(3, *row.shape[1:]).contiguous()).split(1)
    batches = (torch.cat([row, each, third]) for each in (first, second))
    one, other = (_probe(network, batch)[1].calls for batch in batches)
    return {before.name: (before, after) for before, after in zip(one, other, strict=True)}


def _check_calls(owned: list[Tensor], two: SiteRecorder, three: SiteRecorder) -> None:
    one, other = ([(each.name, each.kind, each.p) for each in recorder.calls] for recorder in (two, three))
    if one != other:
        counts = [sum(p > 0 for _, _, p in calls) for calls in (one, other)]
        raise UnsupportedNetwork(
            f"Expected the same dropout sites for every batch, but found {counts[0]} for one and {counts[1]} for "
            "another, or others; the sites must not depend on the input or on the batch size."
        )
    if two.random:
        name, function = two.random[0]
        raise UnsupportedNetwork(
            f"Expected a network without randomness in eval mode, but {name} calls {function}, so the deterministic "
            "prediction would be random; call it under `if self.training`."
        )
    storages = {tensor.untyped_storage().data_ptr() for tensor in owned}
    for call in two.calls:
        if call.training and call.p > 0:
            raise UnsupportedSite(
                f"{call} is called with training=True although the network is in eval mode, so the network's "
                "deterministic prediction would be random; pass training=self.training, and to "
                "scaled_dot_product_attention a dropout_p of 0 in eval mode."
            )
        if call.inplace and call.x.untyped_storage().data_ptr() in storages:
            raise UnsupportedSite(
                f"{call} works in place on a parameter or buffer, which would be lost; use inplace=False."
            )


def _rates(
    network: nn.Module, recorder: SiteRecorder, trained: dict[str, float], probed: TrainProbe, selection: Selection
) -> dict[str, float]:
    """The rate of each site to be sampled, by name."""
    kinds = {call.name: call.kind for call in recorder.calls if trained[call.name] > 0}
    compiled = recorder.compiled
    hidden = {name: probed.kinds[name] for name in probed.unseen} | {name: kind for name, (kind, _) in compiled.items()}
    if not kinds and not hidden:
        raise NoDropoutFound(
            f"{type(network).__name__} has no dropout site with p > 0, so its samples would not vary and their "
            f"standard deviation would be 0; train it with dropout.{''.join(' ' + note for note in _notes(probed))}"
        )
    selected, overridden = selection.selected(kinds | hidden), selection.overridden(kinds | hidden)
    for name, kind in hidden.items():
        if name in selected and name in compiled:
            raise UnsupportedSite(
                f"dropout site {name!r} ({kind}, p={compiled[name][1]:g}) is called by code that torch.jit compiled, "
                "so it cannot be sampled; hand over the network from before torch.jit.script or torch.jit.trace, or "
                "leave the site out by `sites`."
            )
        if name in selected:
            raise UnsupportedSite(
                f"dropout site {name!r} ({kind}, p={probed.rates[name]:g}) is only called in train mode, so it "
                "cannot be sampled in eval mode; call it always, with training=self.training, or leave it out "
                "by `sites`."
            )
    return {name: overridden.get(name, trained[name]) for name in kinds if name in selected}


def _notes(probed: TrainProbe) -> tuple[str, ...]:
    notes = [
        f"{name} calls {function} in train mode, which is no dropout site and is left off."
        for name, function in probed.random
    ]
    if probed.failure is not None:
        notes.append(f"What train mode alone does is not known, for a copy of the network failed: {probed.failure}")
    return tuple(notes)


def _state(network: nn.Module) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """Every parameter and buffer, with its identity and version: a write changes one or the other."""
    tensors = [*network.parameters(), *network.buffers()]
    return tensors, [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _check_rows(network: nn.Module, alone_C: Tensor, mixed_C: Tensor) -> None:
    """Refuse a network whose answer for a row depends on the other rows of its batch, far beyond rounding."""
    if not _alike(alone_C, mixed_C):
        raise UnsupportedNetwork(
            f"Expected {type(network).__name__} to give a row the same logits whatever shares its batch, but they "
            "differ; BatchNorm needs track_running_stats=True, and nothing may be averaged over axis 0."
        )


def _check_fused(network: nn.Module, x: Tensor, recorded_BC: Tensor) -> None:
    """Refuse a network whose fused layers give another answer than the layers themselves, which members run."""
    with torch.inference_mode():
        fused_BC = network(x.clone())
    if not _alike(recorded_BC, fused_BC):
        raise UnsupportedNetwork(
            f"Expected {type(network).__name__} to give the same logits layer by layer as through torch's fused "
            "kernels, but they differ: TransformerEncoder zeroes padded positions only in its fused path, and the "
            "network was trained without it. Build it with enable_nested_tensor=False."
        )


def _alike(one: Tensor, other: Tensor) -> bool:
    tolerance = max(1e-3, 8 * torch.finfo(one.dtype).eps)
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * max(1.0, magnitude(one)), equal_nan=True)


def _check_modules(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if "_orig_mod" in module._modules:
            cure = f"set_submodule({name!r}, network.get_submodule({name!r})._orig_mod)" if name else "_orig_mod"
            what = f"its module {name!r}" if name else "this one"
            raise UnsupportedNetwork(
                f"Expected a network that Python runs, but {what} was compiled by torch.compile, which a committee "
                f"cannot look into; take the one from before: `network.{cure}`."
            )
        if module._compiled_call_impl is not None or hasattr(
            getattr(module, "forward", None), "_torchdynamo_orig_callable"
        ):
            raise UnsupportedNetwork(
                f"Expected a network that Python runs, but the call of {name or type(network).__name__!r} was compiled "
                "by torch.compile, which a committee cannot look into; build the network without."
            )
        if module.training:
            where = f"module {name or type(network).__name__!r} ({type(module).__name__})"
            raise NetworkInTrainingMode(f"{where} is in train mode; call network.eval() first.")
