"""The committee: members drawn once from a seed, frozen, and asked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from uncertainty import masks, members, thinning, tracing
from uncertainty.errors import NoDropoutFound, UncertaintyError, UnsupportedNetwork
from uncertainty.report import Report, work_before_first_site
from uncertainty.selection import Selection
from uncertainty.sites import audit, noise_like
from uncertainty.slots import Site

MAX_SAMPLES = 4096
# Traces exist for these batch sizes; a batch is padded to the next one. Beyond the last, arithmetic dominates.
TRACED_BATCHES = (1, 2, 4, 8, 16, 32)
# Several intermediate results live at a time; the budget is divided by this many copies of the largest.
LIVE_COPIES = 4
# From this many rows on, fewer multiplications weigh more than the memory of the members' own matrices. A fixed number,
# not a measurement at load: two loads of one checkpoint must answer alike to the last bit.
THINNED_FROM = 16
TOLERANCE = 1e-5


class Committee:
    """MC dropout with frozen masks: the same members answer every request.

    Calling it never switches a mode, writes to the network, or touches the global random state, so deterministic
    predictions may run in other threads at the same time. After construction it is immutable and thread-safe.

    Args:
        network: in eval mode, on the device that serves; maps ``[B, ...]`` to logits ``[B, C]``.
        example_input: ``[B, ...]``, at least one row of what the network takes, numbers or tokens; used to find the
            sites. Where inputs differ in length, one of the longest: shorter ones use the first part of each mask.
        num_samples: K, the number of members, 2 to 4096.
        seed: of the generator that draws the masks.
        memory_budget: bytes that the members' intermediate results may take; larger work is done in chunks.
        sites: names, patterns such as ``head.*``, or kinds of the sites to sample; all by default.
        rates: rates by name, pattern or kind that override those the network was trained with.

    Raises:
        NoDropoutFound: no site was found, or the members' answers do not vary.
        UnsupportedSite: a site cannot be sampled faithfully.
        UnsupportedNetwork: the output is not ``[B, C]``, or ``num_samples`` is out of range.
        NetworkInTrainingMode: the network is in train mode.

    Source: Gal and Ghahramani, Dropout as a Bayesian Approximation, 2016; masks frozen as in BatchBALD (Kirsch 2019).
    """

    def __init__(
        self,
        network: nn.Module,
        example_input: Tensor,
        num_samples: int = 64,
        seed: int = 0,
        memory_budget: int = 256 * 2**20,
        sites: Sequence[str] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(num_samples, int) or not 2 <= num_samples <= MAX_SAMPLES:
            raise UnsupportedNetwork(
                f"Expected `num_samples` to be an integer in [2, {MAX_SAMPLES}], but got {num_samples}."
            )
        self.selection = Selection(None if sites is None else tuple(sites), dict(rates or {}))
        found = audit(network, example_input, self.selection)
        self.found = found
        self.network = network
        self.num_samples = num_samples
        self.seed = seed
        self.sites: tuple[Site, ...] = found.sites
        self.num_classes = found.num_classes
        keeps = masks.draw(self.sites, num_samples, seed)
        self.fingerprint = masks.fingerprint(self.sites, keeps, named=sites is not None)
        self._banks = [
            masks.scale(keep, slot.site.p, slot.dtype, example_input.device, slot.kind)
            for slot, keep in zip((slot for slot in found.slots if slot.site), keeps, strict=True)
            if slot.site
        ]
        self._sampled = members.Sampled(network, found.slots, found.zeros)
        self._row = example_input[:1].clone()
        # Members times rows that are computed at a time.
        self._chunk = max(1, memory_budget // (LIVE_COPIES * found.row_bytes))
        with torch.inference_mode():
            row = example_input[:1]
            self._run = self._fastest(row)
            self._graphs = self._trace(row) if self._run is members.vmap else {}
            self._thinned = self._thin(row, keeps, memory_budget)
            self._refuse_constant(row)

    @property
    def strategy(self) -> str:
        """How members are run: ``traced`` (vmap, traced for small batches), ``vmap``, ``fold`` or ``loop``."""
        thinned = f", thinned from {THINNED_FROM} rows" if self._thinned else ""
        return ("traced" if self._graphs else self._run.__name__) + thinned

    def audit(self) -> Report:
        """What is sampled and how, as a table: ``print(committee.audit())``."""
        found = self.found
        return Report(
            slots=tuple(slot for slot in found.slots if slot.site),
            num_samples=self.num_samples,
            strategy=self.strategy,
            before_first_site=work_before_first_site(self.network, self._row, found.slots, found.zeros),
            mask_bytes=sum(bank.numel() * bank.element_size() for bank in self._banks),
            left_out=found.left_out,
            notes=found.notes,
        )

    def __call__(self, x: Tensor, num_samples: int | None = None, first: int = 0) -> Tensor:
        """Logits of the members ``first`` to ``first + num_samples``, ``[K, B, C]``.

        The members are drawn independently, so any run of them is a fair sample of the committee.

        Args:
            x: ``[B, ...]``; B may be 0.
            num_samples: ask only so many members; all from ``first`` on by default.
            first: the member to begin with.

        Raises:
            UnsupportedNetwork: the committee has no such members.
        """
        if not 0 <= first < self.num_samples:
            raise UnsupportedNetwork(
                f"Expected `first` to be an integer in [0, {self.num_samples - 1}], a member's number, but got {first}."
            )
        most = self.num_samples - first
        asked = most if num_samples is None else num_samples
        if not 1 <= asked <= most:
            size = "the committee's size" if first == 0 else f"what the committee has from member {first} on"
            raise UnsupportedNetwork(
                f"Expected `num_samples` to be an integer in [1, {most}], {size}, but got {asked}."
            )
        which = slice(first, first + asked)
        with torch.inference_mode():
            if not len(x):
                return x.new_empty((asked, 0, self.num_classes), dtype=self.found.dtype)
            parts = [self._members(rows, which) for rows in torch.split(x, max(1, self._chunk // asked))]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _members(self, x: Tensor, which: slice) -> Tensor:
        if self._thinned and len(x) >= THINNED_FROM:
            return self._thinned(x, which)
        return self._masked(x, which)

    def _masked(self, x: Tensor, which: slice) -> Tensor:
        graphs = self._graphs if x.shape[1:] == self._row.shape[1:] else {}
        bucket = next((batch for batch in graphs if batch >= len(x)), None)
        if which == slice(0, self.num_samples) and bucket is not None:
            padded = x if len(x) == bucket else torch.cat([x, x[-1:].expand(bucket - len(x), *x.shape[1:])])
            return self._graphs[bucket](padded)[:, : len(x)]
        step = max(1, self._chunk // len(x))
        banks = [torch.split(bank[which], step) for bank in self._banks]
        return torch.cat([self._run(self._sampled, x, part) for part in zip(*banks, strict=True)])

    def _fastest(self, row: Tensor) -> Callable[..., Tensor]:
        """The fastest way that gives what the plain loop gives, on a few members and two rows."""
        x = torch.cat([row, noise_like(row)])
        banks = [bank[:4] for bank in self._banks]
        expected = members.loop(self._sampled, x, banks)
        # Where Python decides by values, members in one batch would decide for each other.
        for way in (members.vmap,) if self.found.decides else (members.vmap, members.fold):
            try:
                if _agree(way(self._sampled, x, banks), expected):
                    return way
            except UncertaintyError:
                raise
            except Exception:  # the user's network fails in as many ways where it cannot be run like this
                continue
        return members.loop

    def _trace(self, row: Tensor) -> dict[int, tracing.Graph]:
        """Traces by batch size, smallest first; none where the network cannot be traced or a trace disagrees."""
        graphs: dict[int, tracing.Graph] = {}
        for batch in TRACED_BATCHES:
            if batch * self.num_samples > self._chunk:
                break
            x = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
            try:
                graph = tracing.trace(self._sampled, x, self._banks)
            except Exception:  # tracing runs the user's network and fails in as many ways; vmap stays
                return {}
            if not _agree(graph(x), members.vmap(self._sampled, x, self._banks)):
                return {}
            graphs[batch] = graph
        return graphs

    def _thin(self, row: Tensor, keeps: list[Tensor], memory_budget: int) -> thinning.Thinned | None:
        """The thinned committee, where the network can be thinned and agrees; see :mod:`uncertainty.thinning`."""
        if self._run is not members.vmap or self.found.decides:
            return None
        x = torch.cat([row, noise_like(row)])
        thinned = thinning.thin(self.network, x, self.sites, keeps, memory_budget // self._banks[0].element_size())
        return thinned if thinned and _agree(thinned(x), self._masked(x, slice(0, self.num_samples))) else None

    def _refuse_constant(self, row: Tensor) -> None:
        """Refuse a committee whose members agree up to rounding, on the example as on noise."""
        logits_KBC = self(torch.cat([row, noise_like(row)]))
        # Not to the last bit: equal rows of one matrix product may round differently.
        rounding = 16 * torch.finfo(logits_KBC.dtype).eps * logits_KBC.abs().amax()
        if bool(((logits_KBC - logits_KBC[:1]).abs() <= rounding).all()):
            found = ", ".join(map(str, self.sites))
            raise NoDropoutFound(
                f"All {self.num_samples} members gave the same logits, so their standard deviation would be 0. "
                f"Sites found: {found}. Check that their rates are between 0 and 1 and that the sites reach the output."
            )


def _agree(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max().clamp(min=1)))
