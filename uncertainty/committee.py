"""The committee: members drawn once from a seed, frozen, and asked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit, noise_like
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.dropout.sites import Site
from dubio.uncertainty.errors import NoDropoutFound, UnsupportedNetwork
from dubio.uncertainty.execution import cuda_graph, masks, strategies
from dubio.uncertainty.execution.autotune import choose
from dubio.uncertainty.report import Report, work_before_first_site

MAX_SAMPLES = 4096


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
        strategy: one of :data:`dubio.uncertainty.execution.autotune.NAMES` for batches of every size; by default the
            fastest for each size is found by measuring.
        measure_seconds: what measuring, and tracing, may take each, roughly.

    Raises:
        NoDropoutFound: no site was found, or the members' answers do not vary.
        UnsupportedSite: a site cannot be sampled faithfully.
        UnsupportedNetwork: the output is not ``[B, C]``, or ``num_samples`` is out of range, or it cannot be run in the
            wanted way.
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
        strategy: str | None = None,
        measure_seconds: float = 2.0,
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
        self._row = example_input[:1].clone()
        with torch.inference_mode():
            able = strategies.find(network, found, self._banks, self._row, memory_budget, measure_seconds)
            runs = able.strategies
            if self._row.is_cuda:
                most = cuda_graph.RECORDED_BYTES // (found.row_bytes * num_samples)
                runs = cuda_graph.recordable(runs, self._row, num_samples, most, cuda_graph.cuda_graph)
            self._strategy = choose(runs, self._row, num_samples, strategy, measure_seconds, able.thinned_from)
            self._refuse_constant(self._row)

    @property
    def strategy(self) -> str:
        """How members are run, by the size of the batch; see :mod:`dubio.uncertainty.execution.strategies`."""
        return str(self._strategy)

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
            return self._strategy(x, which)

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
