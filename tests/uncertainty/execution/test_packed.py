"""Packed steps: the textbook loop over the members' masks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models import TextCNN
from dubio.uncertainty import Committee
from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.errors import StrategyNotApplicable
from dubio.uncertainty.execution import masked, masks, packed, steps
from dubio.uncertainty.execution.packed import PackedSteps
from tests.uncertainty.chains import Net

K, LENGTH, WORDS = 7, 9, 40
ALL_MEMBERS = slice(0, K)


def text_cnn(**settings: object) -> nn.Module:
    return TextCNN(**{"vocabulary": WORDS, "features": 12, "width": 10, "num_classes": 4, "padding": 0.0} | settings)


def texts(rows: int, length: int = LENGTH, seed: int = 0) -> Tensor:
    """Texts of 0 to all words, filled up with zeros; the first is the longest, and two of them are alike."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(1, WORDS, (rows, length), generator=generator)
    words = torch.randint(0, length + 1, (rows, 1), generator=generator)
    words[0] = length
    x[torch.arange(length) >= words] = 0
    x[-1] = x[rows // 2]
    return x.float()


def on_steps(*layers: nn.Module, run) -> nn.Module:
    """A function of layers and embedded tokens ``[B, L, 12]``."""
    return Net(lambda own, x: run(own, own[0](x.long().clamp(0, WORDS - 1))), nn.Embedding(WORDS, 12), *layers)


# Relatives: each by another kind of site, layer, function, pool, or of what follows.
NETWORKS = {
    "text cnn": text_cnn,
    "without padding": lambda: text_cnn(padding=None),
    "wide windows": lambda: text_cnn(windows=(2, 5)),
    "words alone": lambda: text_cnn(embedding_rate=0.0),
    "numbers alone": lambda: text_cnn(word_rate=0.0, head_rate=0.0),
    "nothing left": lambda: text_cnn(word_rate=1.0),
    "linear layer and mean": lambda: on_steps(
        nn.Dropout(0.3), nn.Linear(12, 8), nn.Dropout(0.2), nn.Linear(8, 4),
        run=lambda own, x: own[4](own[3](own[2](own[1](x)).tanh().mean(1))),
    ),
    "stride, dilation, no bias": lambda: on_steps(
        nn.Dropout1d(0.3), nn.Conv1d(12, 8, 3, stride=2, padding=4, dilation=2, bias=False), nn.Linear(8, 4),
        run=lambda own, x: own[3](F.gelu(own[2](own[1](x).mT)).amax(-1)),
    ),
    "same length": lambda: on_steps(
        nn.Dropout(0.3), nn.Conv1d(12, 8, 4, padding="same", dilation=2), nn.AdaptiveMaxPool1d(1), nn.Linear(8, 4),
        run=lambda own, x: own[4](own[3](own[2](own[1](x).permute(0, 2, 1)).relu()).flatten(1)),
    ),
    "whole channels": lambda: on_steps(
        nn.Dropout1d(0.3), nn.Conv1d(12, 8, 2), nn.AdaptiveAvgPool1d(1), nn.Linear(8, 4),
        run=lambda own, x: own[4](own[3](own[2](own[1](x.transpose(1, 2))).relu()).squeeze(-1)),
    ),
    "values of max": lambda: on_steps(
        nn.Dropout(0.3), nn.Conv1d(12, 8, 2), nn.Linear(8, 8), nn.Dropout(0.4), nn.Linear(8, 4),
        run=lambda own, x: own[5](own[4](own[3](own[2](own[1](x).transpose(2, 1)).max(2).values).relu())),
    ),
    "max_pool1d over all": lambda: on_steps(
        nn.Dropout(0.3), nn.Conv1d(12, 8, 2), nn.Linear(8, 4),
        run=lambda own, x: own[3](F.max_pool1d(own[2](own[1](x).transpose(2, 1)), LENGTH - 1).squeeze(2)),
    ),
    "a gate": lambda: on_steps(
        nn.Dropout(0.3), nn.Linear(12, 12), nn.Conv1d(12, 8, 2), nn.Linear(8, 4),
        run=lambda own, x: own[4](own[3]((own[1](x) * own[2](x).sigmoid()).transpose(2, 1)).relu().amax(2)),
    ),
    "two readers": lambda: on_steps(
        nn.Dropout(0.3), nn.Conv1d(12, 8, 2), nn.Linear(12, 6), nn.Linear(14, 4),
        run=lambda own, x: own[4](_both(own, own[1](x))),
    ),
}  # fmt: skip


def _both(own: nn.ModuleList, x: Tensor) -> Tensor:
    return torch.cat([own[2](x.transpose(1, 2)).relu().amax(-1), own[3](x).relu().amax(1)], 1)


def built(build, dtype: torch.dtype = torch.float64, max_numbers: int = 2**24, x: Tensor | None = None):
    """The strategy, and the loop over the same members."""
    torch.manual_seed(0)
    network = build().eval().requires_grad_(False).to(dtype)
    x = texts(2) if x is None else x
    plan = audit(network, x)
    keeps = masks.draw(plan.sites, K, seed=0)
    banks = [
        masks.scale(keep, site.p, call.dtype, x.device, site.kind)
        for keep, site, call in zip(keeps, plan.sites, plan.sampled, strict=True)
    ]

    def loop(x: Tensor, members: slice = ALL_MEMBERS) -> Tensor:
        return masked.loop(plan, x, [bank[members] for bank in banks])

    with torch.inference_mode():
        strategy = PackedSteps(plan, steps.record(plan, x), banks, x.shape[1:], max_numbers, loop)
    return strategy, loop, banks, network


@pytest.mark.parametrize("rows", [1, 2, 17, 65])
@pytest.mark.parametrize("name", NETWORKS)
def test_packed_members_are_the_loop(name, rows):
    strategy, loop, _, _ = built(NETWORKS[name])
    x = texts(rows, seed=rows)
    with torch.inference_mode():
        kept, logits_KBC = x.clone(), strategy(x, ALL_MEMBERS)
        torch.testing.assert_close(logits_KBC, loop(x), rtol=1e-11, atol=1e-11)
        assert torch.equal(strategy(x, ALL_MEMBERS), logits_KBC)
    assert torch.equal(x, kept)


def test_members_of_a_text_cnn_are_its_formula_with_masks():
    strategy, _, (words, numbers, head), network = built(text_cnn)
    x = texts(5)
    with torch.inference_mode():
        logits_KBC = strategy(x, ALL_MEMBERS)
        for k in range(K):
            dropped = network.steps.table(x.long()) * words[k] * numbers[k] * (x != 0).unsqueeze(2)
            pooled = [
                F.conv1d(dropped.mT, conv.weight, conv.bias, padding=conv.kernel_size[0] - 1).relu().amax(2)
                for conv in network.windows
            ]
            expected_BC = network.head(torch.cat(pooled, 1) * head[k])
            torch.testing.assert_close(logits_KBC[k], expected_BC, rtol=1e-11, atol=1e-11)


def test_every_size_of_batch_is_answered_as_row_by_row():
    strategy, loop, _, _ = built(text_cnn)
    x = texts(65)
    with torch.inference_mode():
        expected = loop(x)
        for rows in range(1, 66):
            torch.testing.assert_close(strategy(x[-rows:], ALL_MEMBERS), expected[:, -rows:], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, LENGTH),
        torch.zeros(1, LENGTH),
        torch.eye(LENGTH)[:1] * 3,
        torch.eye(LENGTH) * 3,
        torch.full((4, LENGTH), 5.0),
    ],
    ids=["no words", "one text without words", "one word", "one word each, anywhere", "one word again"],
)
@pytest.mark.parametrize("name", ["text cnn", "without padding", "wide windows", "linear layer and mean"])
def test_texts_without_words_or_of_one(name, x):
    strategy, loop, _, _ = built(NETWORKS[name])
    with torch.inference_mode():
        torch.testing.assert_close(strategy(x, ALL_MEMBERS), loop(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 31])
def test_lengths(length):
    strategy, loop, _, _ = built(text_cnn, x=texts(2, length))
    x = texts(6, length, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(strategy(x, ALL_MEMBERS), loop(x), rtol=1e-11, atol=1e-11)


def test_shorter_inputs_than_the_example_are_run_otherwise():
    strategy, loop, _, _ = built(text_cnn)
    x = texts(3, LENGTH - 2)
    with torch.inference_mode():
        assert torch.equal(strategy(x, ALL_MEMBERS), loop(x))


@pytest.mark.parametrize("numbers", [K * LENGTH * 12, 2000])
def test_chunks_and_parts_of_the_members_do_not_matter(numbers, monkeypatch):
    monkeypatch.setattr(packed, "PRODUCT", 200)
    strategy, loop, _, _ = built(text_cnn, max_numbers=numbers)
    x = texts(13)
    with torch.inference_mode():
        for members in (ALL_MEMBERS, slice(0, 1), slice(2, 5), slice(K - 1, K)):
            torch.testing.assert_close(strategy(x, members), loop(x, members), rtol=1e-11, atol=1e-11)


def test_masks_that_exceed_the_budget_are_not_kept():
    with pytest.raises(StrategyNotApplicable, match=f"{K * LENGTH * 12} numbers, more than the {K * LENGTH * 12 - 1}"):
        built(text_cnn, max_numbers=K * LENGTH * 12 - 1)


def test_equal_steps_in_the_same_place_are_computed_once_and_zeros_never():
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
    zero = torch.zeros(2)
    steps_BLF = torch.stack([torch.stack(each) for each in ([one, other, zero], [one, one, zero], [other, other, one])])
    distinct_UF, place_U, index_BL = packed._pack(steps_BLF)
    assert len(distinct_UF) == 5
    filled = torch.cat([distinct_UF, zero.unsqueeze(0)])
    assert torch.equal(filled[index_BL], steps_BLF)
    assert torch.equal(place_U[index_BL[index_BL < 5]], torch.tensor([0, 1, 0, 1, 0, 1, 2]))


def test_steps_with_equal_sums_are_told_apart(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(*size, dtype=torch.float64))
    steps_BLF = torch.tensor([[[1.0, 2.0]], [[2.0, 1.0]], [[1.0, 2.0]]])
    distinct_UF, _, index_BL = packed._pack(steps_BLF)
    assert torch.equal(distinct_UF[index_BL], steps_BLF)


def test_a_committee_packs_and_says_so():
    network = text_cnn().eval()
    committee = Committee(network, texts(1), num_samples=K, measure_seconds=0)
    assert committee.strategy == "packed"
    loop = Committee(network, texts(1), num_samples=K, strategy="loop", measure_seconds=0)
    x = texts(33)
    torch.testing.assert_close(committee(x), loop(x), rtol=1e-5, atol=1e-5)
    assert committee(x[:0]).shape == (K, 0, 4)
