"""The committee: members drawn once from a seed, frozen, and asked together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncertainty import masks, members, thinning, tracing
from uncertainty.errors import NoDropoutFound, UnsupportedNetwork
from uncertainty.sites import Site, audit

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
        example_input: ``[B, ...]``, at least one row of what the network takes; used to find the sites.
        num_samples: K, the number of members, 2 to 4096.
        seed: of the generator that draws the masks.
        memory_budget: bytes that the members' intermediate results may take; larger work is done in chunks.

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
    ) -> None:
        if not isinstance(num_samples, int) or not 2 <= num_samples <= MAX_SAMPLES:
            raise UnsupportedNetwork(
                f"Expected `num_samples` to be an integer in [2, {MAX_SAMPLES}], but got {num_samples}."
            )
        found = audit(network, example_input)
        self.network = network
        self.num_samples = num_samples
        self.seed = seed
        self.sites: tuple[Site, ...] = found.sites
        self.num_classes = found.num_classes
        keeps = masks.draw(self.sites, num_samples, seed)
        self.fingerprint = masks.fingerprint(self.sites, keeps)
        self._banks = [
            masks.scale(keep, site.p, example_input.dtype, example_input.device)
            for site, keep in zip(self.sites, keeps, strict=True)
        ]
        # Members times rows that are computed at a time.
        self._chunk = max(1, memory_budget // (LIVE_COPIES * found.row_bytes))
        with torch.inference_mode():
            row = example_input[:1]
            self._run = members.vmap if self._vmap_agrees(row) else members.loop
            self._graphs = self._trace(row) if self._run is members.vmap else {}
            self._thinned = self._thin(row, keeps, memory_budget)
            self._refuse_constant(row)

    @property
    def strategy(self) -> str:
        """How members are run: ``traced`` (vmap, traced for small batches), ``vmap`` or ``loop``; thinned from when."""
        thinned = f", thinned from {THINNED_FROM} rows" if self._thinned else ""
        return ("traced" if self._graphs else self._run.__name__) + thinned

    def __call__(self, x: Tensor, num_samples: int | None = None) -> Tensor:
        """Logits of every member, ``[K, B, C]``.

        Args:
            x: ``[B, ...]``; B may be 0.
            num_samples: ask only the first so many members; all by default.

        Raises:
            UnsupportedNetwork: ``num_samples`` is not in [1, K].
        """
        asked = self.num_samples if num_samples is None else num_samples
        if not 1 <= asked <= self.num_samples:
            raise UnsupportedNetwork(
                f"Expected `num_samples` to be an integer in [1, {self.num_samples}], the committee's size, "
                f"but got {asked}."
            )
        with torch.inference_mode():
            if not len(x):
                return x.new_empty((asked, 0, self.num_classes))
            parts = [self._members(rows, asked) for rows in torch.split(x, max(1, self._chunk // asked))]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _members(self, x: Tensor, asked: int) -> Tensor:
        if self._thinned and len(x) >= THINNED_FROM and asked == self.num_samples:
            return self._thinned(x)
        return self._masked(x, asked)

    def _masked(self, x: Tensor, asked: int) -> Tensor:
        bucket = next((batch for batch in self._graphs if batch >= len(x)), None)
        if asked == self.num_samples and bucket is not None:
            padded = x if len(x) == bucket else torch.cat([x, x[-1:].expand(bucket - len(x), *x.shape[1:])])
            return self._graphs[bucket](padded)[:, : len(x)]
        step = max(1, self._chunk // len(x))
        banks = [torch.split(bank[:asked], step) for bank in self._banks]
        return torch.cat([self._run(self.network, x, part) for part in zip(*banks, strict=True)])

    def _vmap_agrees(self, row: Tensor) -> bool:
        """Whether vmap gives what the plain loop gives, on a few members and two rows."""
        x = torch.cat([row, _noise_like(row)])
        banks = [bank[:4] for bank in self._banks]
        expected = members.loop(self.network, x, banks)
        try:
            return _agree(members.vmap(self.network, x, banks), expected)
        except RuntimeError:  # torch.func has no batching rule for some operation of this network
            return False

    def _trace(self, row: Tensor) -> dict[int, tracing.Graph]:
        """Traces by batch size, smallest first; none where the network cannot be traced or a trace disagrees."""
        graphs: dict[int, tracing.Graph] = {}
        for batch in TRACED_BATCHES:
            if batch * self.num_samples > self._chunk:
                break
            x = torch.cat([row, _noise_like(row.expand(batch - 1, *row.shape[1:]))])
            try:
                graph = tracing.trace(self.network, x, self._banks)
            except Exception:  # tracing runs the user's network and fails in as many ways; vmap stays
                return {}
            if not _agree(graph(x), members.vmap(self.network, x, self._banks)):
                return {}
            graphs[batch] = graph
        return graphs

    def _thin(self, row: Tensor, keeps: list[Tensor], memory_budget: int) -> thinning.Thinned | None:
        """The thinned committee, where the network can be thinned and agrees; see :mod:`uncertainty.thinning`."""
        if self._run is not members.vmap:
            return None
        x = torch.cat([row, _noise_like(row)])
        thinned = thinning.thin(self.network, x, self.sites, keeps, memory_budget // row.element_size())
        return thinned if thinned and _agree(thinned(x), self._masked(x, self.num_samples)) else None

    def _refuse_constant(self, row: Tensor) -> None:
        """Refuse a committee whose members agree up to rounding, on the example as on noise."""
        logits_KBC = self(torch.cat([row, _noise_like(row)]))
        # Not to the last bit: equal rows of one matrix product may round differently.
        rounding = 16 * torch.finfo(logits_KBC.dtype).eps * logits_KBC.abs().amax()
        if bool(((logits_KBC - logits_KBC[:1]).abs() <= rounding).all()):
            found = ", ".join(f"{site.kind}(p={site.p:g}, shape={list(site.shape)})" for site in self.sites)
            raise NoDropoutFound(
                f"All {self.num_samples} members gave the same logits, so their standard deviation would be 0. "
                f"Sites found: {found}. Check that their rates are between 0 and 1 and that the sites reach the output."
            )


def _noise_like(x: Tensor) -> Tensor:
    """Standard normal rows from a generator of their own, so that no check depends on a degenerate example."""
    noise = torch.randn(x.shape, generator=torch.Generator(device="cpu").manual_seed(0), dtype=x.dtype)
    return noise.to(x.device)


def _agree(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max().clamp(min=1)))
