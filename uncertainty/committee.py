"""The committee: members drawn once from a seed, frozen, and asked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit, noise_like
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.dropout.sites import Site
from dubio.uncertainty.errors import NoDropoutFound, UnsupportedNetwork
from dubio.uncertainty.execution import cuda_graph, masks, strategies
from dubio.uncertainty.execution.autotune import autotune
from dubio.uncertainty.execution.fallback import Fallbacks
from dubio.uncertainty.execution.flops import work_before_first_site
from dubio.uncertainty.execution.timing import TimeBudget
from dubio.uncertainty.magnitude import magnitude
from dubio.uncertainty.report import Report

MAX_SAMPLES = 4096


class Moments(NamedTuple):
    """Of the members' class probabilities.

    Attributes:
        mean: ``[B, C]``.
        std: ``[B, C]``, with divisor K.
    """

    mean: Tensor
    std: Tensor


class Committee:
    """MC dropout with frozen masks: the same members answer every request.

    Calling it never switches a mode, writes to the network, or touches the global random state, so deterministic
    predictions may run in other threads at the same time. After construction it is immutable and thread-safe.

    Args:
        network: In eval mode, on the device that serves; maps ``[B, ...]`` to logits ``[B, C]``.
        example_input: ``[B, ...]``, at least one row of what the network takes, numbers or tokens; used to find the
            sites. Where inputs differ in length, one of the longest: shorter ones use the first part of each mask.
        num_samples: K, the number of members, 2 to 4096.
        seed: Of the generator that draws the masks.
        memory_budget: Bytes that the members' intermediate results may take; larger work is done in chunks. By default
            256 MiB on a CPU and a sixteenth of a GPU's memory.
        sites: Names, patterns such as ``head.*``, or kinds of the sites to sample; all by default.
        rates: Rates by name, pattern or kind that override those the network was trained with.
        strategy: One of `dubio.uncertainty.execution.choice.NAMES` for batches of every size, or what `strategy` of
            another committee said, such as ``chain up to 16 rows, thinned``; by default the fastest for each size is
            found by measuring.
        measure_seconds: What measuring the strategies may take; tracing, or finding the kernels of a chain, may take up
            to half of it, the strategies' calls what is left. No call is begun when the time is up. Checking that
            strategies agree comes on top. Where strategies change between two sizes that were measured is told by what
            both cost there; sizes beyond the last keep its choice.

    Raises:
        NoDropoutFound: No site was found, or the members' answers do not vary.
        UnsupportedSite: A site cannot be sampled faithfully.
        UnsupportedNetwork: The output is not ``[B, C]``, or ``num_samples`` is out of range, or the wanted strategy
            cannot run the network.
        NetworkInTrainingMode: The network is in train mode.

    Example:
        >>> import torch
        >>> generator = torch.manual_seed(0)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)).eval()
        >>> committee = Committee(network, example_input=torch.zeros(1, 4), num_samples=16, seed=0)
        >>> print(*committee.sites)
        1: dropout(p=0.5, shape=[8])
        >>> logits_KBC = committee(torch.randn(5, 4))
        >>> logits_KBC.shape
        torch.Size([16, 5, 3])
        >>> mean_BC, std_BC = committee.predictive_moments(torch.randn(5, 4))
        >>> bool((std_BC > 0).all())
        True

    Source: Gal and Ghahramani, Dropout as a Bayesian Approximation, 2016; masks frozen as in BatchBALD (Kirsch 2019).
    """

    def __init__(
        self,
        network: nn.Module,
        example_input: Tensor,
        num_samples: int = 64,
        seed: int = 0,
        memory_budget: int | None = None,
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
        self.plan = audit(network, example_input, self.selection)
        self.network = network
        self.num_samples = num_samples
        self.seed = seed
        self._memory_budget, self._measure_seconds = memory_budget, measure_seconds
        self.sites: tuple[Site, ...] = self.plan.sites
        self.num_classes = self.plan.num_classes
        keeps = masks.draw(self.sites, num_samples, seed)
        self.fingerprint = masks.fingerprint(self.sites, keeps, named=sites is not None)
        self._banks = [
            masks.scale(keep, site.p, call.dtype, example_input.device, site.kind)
            for keep, site, call in zip(keeps, self.sites, self.plan.sampled, strict=True)
        ]
        self._row = example_input[:1].clone()
        budget = strategies.default_budget(example_input.device) if memory_budget is None else memory_budget
        self._settle_threads()
        fallbacks, measuring = Fallbacks(), TimeBudget(measure_seconds)
        with torch.inference_mode():
            runs = strategies.build(self.plan, self._banks, self._row, budget, measuring, fallbacks)
            if self._row.is_cuda:
                max_rows = cuda_graph.CAPTURED_BYTES // (self.plan.row_bytes * num_samples)
                graphs = cuda_graph.cuda_graphs(self._row.device)
                runs = cuda_graph.capture_all(runs, self._row, num_samples, max_rows, graphs, fallbacks)
            self._dropped = tuple(fallbacks.dropped)
            self._autotuner = autotune(
                runs,
                self._row,
                num_samples,
                strategy,
                measuring.left,
                self._dropped,
            )
            self._refuse_constant(self._row)
        fallbacks.log(type(network).__name__, self.strategy)

    def __repr__(self) -> str:
        sites = ", ".join(map(str, self.sites))
        return (
            f"Committee({type(self.network).__name__}, num_samples={self.num_samples}, seed={self.seed}, "
            f"strategy={self.strategy!r}, sites=[{sites}])"
        )

    @property
    def strategy(self) -> str:
        """How members are run, by the size of the batch; as `strategy` of a committee it is pinned."""
        return str(self._autotuner)

    @property
    def strategies(self) -> tuple[str, ...]:
        """The names of those that run members, that for small batches first."""
        return self._autotuner.choice.all_names

    def pinned(self, strategy: str) -> Committee:
        """The same members, run by another strategy, see `Committee`.

        Raises:
            UnsupportedNetwork: It cannot run the network.
        """
        return Committee(
            self.network,
            self._row,
            self.num_samples,
            self.seed,
            self._memory_budget,
            self.selection.sites,
            self.selection.rates,
            strategy,
            self._measure_seconds,
        )

    def audit(self) -> Report:
        """Say what is sampled and how, as a table: ``print(committee.audit())``."""
        return Report(
            self.plan,
            self.num_samples,
            self._autotuner,
            self._dropped,
            before_first_site=work_before_first_site(self.plan, self._row),
            mask_bytes=sum(bank.nbytes for bank in self._banks),
        )

    def __call__(self, x: Tensor, num_samples: int | None = None, first: int = 0) -> Tensor:
        """Give the logits of the members ``first`` to ``first + num_samples``, ``[K, B, C]``.

        The members are drawn independently, so any run of them is a fair sample of the committee.

        Args:
            x: ``[B, ...]``; B may be 0.
            num_samples: How many members are asked; all from ``first`` on by default.
            first: The member to begin with.

        Raises:
            UnsupportedNetwork: The committee has no such members.
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
        self._settle_threads()
        with torch.inference_mode():
            if not len(x):
                return x.new_empty((asked, 0, self.num_classes), dtype=self.plan.dtype)
            return self._autotuner(x, slice(first, first + asked))

    @staticmethod
    def _settle_threads() -> None:
        """Let this thread compute with as many threads as torch was told to.

        OpenMP and MKL keep a number for each thread, and torch passes its own on only when an operation asks for it,
        which the prepared ones do not: a new thread would use one for each processor.
        """
        torch.get_num_threads()

    def predictive_moments(self, x: Tensor) -> Moments:
        """Mean and standard deviation of the members' class probabilities.

        Args:
            x: ``[B, ...]``; B may be 0.

        Returns:
            The softmax of each member's logits, averaged over all K members, ``[B, C]``; and its standard deviation
            over them with divisor K (``correction=0``), ``[B, C]``; both in single precision at least.
        """
        logits_KBC = self(x)
        probs_KBC = logits_KBC.to(torch.promote_types(logits_KBC.dtype, torch.float32)).softmax(-1)
        mean_BC = probs_KBC.mean(0)
        return Moments(mean_BC, (probs_KBC - mean_BC).square().mean(0).sqrt())  # `std` warns of an empty batch

    def _refuse_constant(self, row: Tensor) -> None:
        """Refuse a committee whose members agree up to rounding, on the example as on noise."""
        logits_KBC = self(torch.cat([row, noise_like(row)]))
        # Not to the last bit: equal rows of one matrix product may round differently.
        rounding = 16 * torch.finfo(logits_KBC.dtype).eps
        first_KBC = logits_KBC[:1].expand_as(logits_KBC)
        if torch.allclose(logits_KBC, first_KBC, rtol=rounding, atol=rounding * magnitude(logits_KBC)):
            raise NoDropoutFound(
                f"All {self.num_samples} members gave the same logits, so their standard deviation would be 0. "
                f"Sites found: {', '.join(map(str, self.sites))}. "
                "Check that their rates are between 0 and 1 and that the sites reach the output."
            )
