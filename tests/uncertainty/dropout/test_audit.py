"""Finding dropout sites, and refusing those that could not be sampled faithfully."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit, noise_like
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.dropout.sites import Site
from dubio.uncertainty.errors import NetworkInTrainingMode, NoDropoutFound, UnsupportedNetwork, UnsupportedSite
from tests.quick import quick_committee


class Net(nn.Module):
    """Linear, a function of one's own, linear."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(6, 8), inner or nn.Identity(), nn.Linear(8, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.first(x)))


def _audit(between: Callable[[nn.Module, Tensor], Tensor], inner: nn.Module | None = None) -> tuple[Site, ...]:
    return audit(Net(between, inner).eval(), torch.randn(1, 6)).sites


def test_every_kind_is_found_in_call_order(case):
    plan = audit(case.network, case.inputs(1))
    axes = len(case.shape) - 1
    if axes == 0:
        assert plan.sites == (Site("dropout", 0.4, (16,)), Site("dropout", 0.4, (12,)))
    else:
        assert plan.sites == (Site(f"dropout{axes}d", 0.4, (4, *[1] * axes)),) * 2
    assert plan.num_classes == 3


def test_elementwise_dropout_has_a_unit_for_every_pixel():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout(0.2), nn.Flatten(), nn.Linear(36, 3)).eval()
    assert audit(network, torch.randn(1, 2, 5, 5)).sites == (Site("dropout", 0.2, (4, 3, 3)),)


@pytest.mark.parametrize(
    "call",
    [
        lambda self, h: F.dropout(h, 0.3, self.training),
        lambda self, h: F.dropout(h, 0.3, self.training, False),
        lambda self, h: F.dropout(input=h, p=0.3, training=self.training, inplace=False),
        lambda self, h: F.dropout(h, training=self.training, p=0.3),
    ],
)
def test_arguments_are_understood_however_they_are_passed(call):
    assert _audit(call) == (Site("dropout", 0.3, (8,)),)


def test_the_default_rate_is_one_half():
    assert _audit(lambda self, h: F.dropout(h, training=self.training)) == (Site("dropout", 0.5, (8,)),)


def test_a_module_that_is_used_twice_is_two_sites():
    assert len(_audit(lambda self, h: self.inner(self.inner(h)), nn.Dropout(0.5))) == 2


def test_a_rate_of_zero_is_no_site():
    sites = _audit(lambda self, h: self.inner(F.dropout(h, 0.0, self.training)), nn.Dropout(0.5))
    assert sites == (Site("dropout", 0.5, (8,)),)
    with pytest.raises(NoDropoutFound, match="no dropout site with p > 0"):
        _audit(lambda self, h: self.inner(h), nn.Dropout(0.0))


def test_a_batch_axis_is_told_from_a_feature_axis_of_the_same_length():
    # The probing batches hold 2 and 3 rows, like these activations' other axes.
    for width in (2, 3):
        network = nn.Sequential(nn.Linear(6, width), nn.Dropout(0.5), nn.Linear(width, 3)).eval()
        assert audit(network, torch.randn(1, 6)).sites == (Site("dropout", 0.5, (width,)),)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_largest_intermediate_result_is_measured_for_one_row(rows):
    network = nn.Sequential(nn.Linear(6, 100), nn.ReLU(), nn.Dropout(0.5), nn.Linear(100, 3)).eval()
    assert audit(network, torch.randn(rows, 6)).row_bytes == 400
    recurrent = Net(lambda self, h: F.dropout(self.inner(h[:, None, :])[0][:, 0, :8]), nn.GRU(8, 300, batch_first=True))
    recurrent.between = lambda self, h: F.dropout(self.inner(h[:, None, :])[0][:, 0, :8], 0.5, self.training)
    assert audit(recurrent.eval(), torch.randn(rows, 6)).row_bytes == 1200


@pytest.mark.parametrize("name", ["", "first", "inner"])
def test_a_module_in_train_mode_is_refused_by_name(name):
    network = Net(lambda self, h: self.inner(h), nn.Dropout(0.5)).eval()
    network.get_submodule(name).training = True
    with pytest.raises(NetworkInTrainingMode, match=rf"{name or 'Net'}.*call network.eval\(\) first"):
        audit(network, torch.randn(1, 6))


REFUSED_CALLS = {
    "training by default": (lambda self, h: F.dropout(h), r"site 'Net' \(dropout, p=0.5\).*training=True"),
    "training": (lambda self, h: F.dropout(F.dropout(h, 0.2, False), 0.3, True), r"site 'Net#2' \(dropout, p=0.3\)"),
    "two axes grow": (
        lambda self, h: h * F.dropout(h.new_ones(len(h), len(h)), 0.5, False).diagonal()[:, None],
        r"shape \(2, 2\) for a batch of 2 and \(3, 3\) for 3",
    ),
    "not in proportion": (
        lambda self, h: F.dropout(torch.cat([h, h[:1]]), 0.5, False)[: len(h)],
        r"shape \(3, 8\) for a batch of 2 and \(4, 8\) for 3",
    ),
    "channels missing": (
        lambda self, h: F.dropout3d(h[:, :, None, None], 0.5, False)[:, :, 0, 0],
        r"needs \[B, C\] and 3 more axes",
    ),
    "no batch axis for torch": (lambda self, h: F.dropout1d(h, 0.5, False), r"needs \[B, C\] and 1 more axes"),
}


@pytest.mark.parametrize(("between", "match"), REFUSED_CALLS.values(), ids=REFUSED_CALLS.keys())
def test_a_call_that_cannot_be_sampled_is_refused(between, match):
    with pytest.raises(UnsupportedSite, match=match):
        _audit(between)


def test_randomness_in_eval_mode_is_refused():
    with pytest.raises(UnsupportedNetwork, match="Net calls rand_like, so the deterministic prediction"):
        _audit(lambda self, h: F.dropout(h, 0.5, False) + 1e-9 * torch.rand_like(h))


def test_sites_are_named_after_their_modules():
    class Inner(nn.Sequential):
        pass

    inner = Inner(nn.Dropout(0.1), nn.ModuleDict({"deep": nn.Dropout(0.2)})["deep"])
    sites = _audit(lambda self, h: F.dropout(self.inner(self.inner(h)), 0.3, self.training), inner)
    assert [site.name for site in sites] == ["inner.0", "inner.1", "inner.0#2", "inner.1#2", "Net"]
    assert str(sites[2]) == "inner.0#2: dropout(p=0.1, shape=[8])"


def test_tokens_are_audited_within_their_vocabulary():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.drop, self.head = nn.Embedding(7, 4), nn.Dropout(0.5), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.embed(x)).flatten(1))

    for example in (torch.tensor([[6, 0, 3]]), torch.zeros(1, 3, dtype=torch.int32)):
        assert audit(Tokens().eval(), example).sites == (Site("dropout", 0.5, (3, 4)),)


@pytest.mark.parametrize(
    "inner",
    [nn.LSTM(8, 8), nn.MultiheadAttention(8, 2), nn.AlphaDropout(0.0)],
    ids=lambda module: type(module).__name__,
)
def test_such_modules_without_dropout_are_fine(inner):
    assert _audit(lambda self, h: F.dropout(h, 0.5, self.training), inner) == (Site("dropout", 0.5, (8,)),)


def test_attention_without_dropout_is_fine():
    def attend(self: nn.Module, h: Tensor) -> Tensor:
        attended, _ = self.inner(h[:, None], h[:, None], h[:, None])
        return F.dropout(attended[:, 0], 0.5, self.training)

    assert _audit(attend, nn.MultiheadAttention(8, 2, batch_first=True)) == (Site("dropout", 0.5, (8,)),)


@pytest.mark.parametrize(
    ("output", "returned"),
    [
        (lambda h: h.sum(1), r"\(2,\)"),
        (lambda h: h[:, None], r"\(2, 1, 3\)"),
        (lambda h: h.T, r"\(3, 2\)"),
        (lambda h: (h, h), "tuple"),
        (lambda h: {"logits": h}, "dict"),
    ],
)
def test_an_output_that_is_not_logits_is_refused(output, returned):
    class Odd(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return output(super().forward(x))

    with pytest.raises(UnsupportedNetwork, match=rf"\[B, C\].*returned {returned}"):
        audit(Odd(nn.Linear(6, 3), nn.Dropout(0.5)).eval(), torch.randn(1, 6))


@pytest.mark.parametrize(
    ("between", "inner"),
    [
        (lambda self, h: F.dropout(self.inner(h), 0.5, False), nn.BatchNorm1d(8, track_running_stats=False)),
        (lambda self, h: F.dropout(h - h.mean(0), 0.5, False), None),
        (lambda self, h: F.dropout(h / h.abs().max(), 0.5, False), None),
    ],
    ids=["BatchNorm on batch statistics", "mean over the batch", "maximum over the batch"],
)
def test_a_network_that_mixes_the_rows_of_a_batch_is_refused(between, inner):
    with pytest.raises(UnsupportedNetwork, match="whatever shares its batch"):
        _audit(between, inner)


def test_a_network_that_writes_into_its_input_is_refused():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3), nn.Dropout(0.5)).eval()
    with pytest.raises(UnsupportedNetwork, match="writes into it"):
        audit(network, torch.zeros(1, 6))


def _count_in_place(self: nn.Module, h: Tensor) -> Tensor:
    self.inner.running_mean += 1
    return F.dropout(h, 0.5, False)


def _count_anew(self: nn.Module, h: Tensor) -> Tensor:
    self.inner.running_mean = self.inner.running_mean + 1
    return F.dropout(h, 0.5, False)


@pytest.mark.parametrize("between", [_count_in_place, _count_anew])
def test_a_network_that_writes_to_a_buffer_in_eval_mode_is_refused(between):
    with pytest.raises(UnsupportedNetwork, match="parameter or buffer"):
        _audit(between, nn.BatchNorm1d(8))


def test_sites_that_depend_on_the_batch_are_refused():
    with pytest.raises(UnsupportedNetwork, match="found 1 for one and 2 for another"):
        _audit(lambda self, h: F.dropout(F.dropout(h, 0.5, False), 0.5 if len(h) > 2 else 0.0, False))


@pytest.mark.parametrize("shape", [(), (0, 6)])
def test_an_example_without_rows_is_refused(shape):
    with pytest.raises(UnsupportedNetwork, match="at least one row"):
        audit(nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).eval(), torch.zeros(shape))


def test_the_example_is_not_written():
    example = torch.randn(2, 6)
    before = example.clone()
    audit(nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).eval(), example)
    assert torch.equal(example, before)


def test_a_site_of_rate_zero_is_not_left_out_for_there_is_nothing_to_leave():
    network = nn.Sequential(
        nn.Linear(6, 8), nn.Dropout(0.0), nn.Dropout(0.3), nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3)
    ).eval()
    plan = audit(network, torch.randn(1, 6), Selection(("4",)))
    assert ([site.name for site in plan.sites], plan.left_out) == (["4"], ("2",))
    assert audit(network, torch.randn(1, 6)).left_out == ()


def test_a_site_whose_rate_only_train_mode_shows_can_be_left_out():
    def between(self: nn.Module, h: Tensor) -> Tensor:
        return self.inner(F.dropout(h, 0.3 if self.training else 0.0, self.training))

    network = Net(between, nn.Dropout(0.5)).eval()
    plan = audit(network, torch.randn(1, 6), Selection(("inner",)))
    # The call with a rate of 0 is not even met.
    assert [call.site and call.site.name for call in plan.calls] == ["inner"]
    assert plan.left_out == ("Net",)


@pytest.mark.parametrize(
    ("example", "low", "high"),
    [
        (torch.zeros(1, 50, dtype=torch.long), 0, 1),
        (torch.full((1, 50), 6, dtype=torch.int32), 0, 6),
        (torch.tensor([[-2, 3] * 25]), -2, 3),
        (torch.ones(1, 50, dtype=torch.bool), False, True),
    ],
)
def test_noise_among_tokens_takes_every_value_up_to_the_examples(example, low, high):
    noise = noise_like(example.expand(20, -1))
    assert (noise.shape, noise.dtype) == ((20, 50), example.dtype)
    assert (noise.min(), noise.max()) == (low, high)
    assert torch.equal(noise, noise_like(example.expand(20, -1)))


def test_noise_is_standard_normal_on_the_device_of_the_example():
    noise = noise_like(torch.zeros(2000, 5, dtype=torch.float64))
    assert noise.dtype == torch.float64
    assert abs(float(noise.mean())) < 5 / 100
    assert abs(float(noise.var()) - 1) < 5 * 2**0.5 / 100
    assert noise_like(torch.zeros(2, 5, device="meta")).is_meta
    assert noise_like(torch.zeros(0, 5, dtype=torch.long)).shape == (0, 5)


class Embedded(nn.Module):
    """Padding, token 0, is embedded as zeros, so that an example of padding alone varies nowhere."""

    def __init__(self, mixes_rows: bool = False) -> None:
        super().__init__()
        self.embed, self.drop, self.head = nn.Embedding(4, 6, padding_idx=0), nn.Dropout(0.5), nn.Linear(6, 3)
        self.mixes_rows = mixes_rows

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(self.drop(h - h.mean(0) if self.mixes_rows else h).sum(1))


def test_an_example_of_padding_alone_hides_neither_variation_nor_mixed_rows():
    padding = torch.zeros(1, 5, dtype=torch.long)
    assert quick_committee(Embedded().eval(), padding, num_samples=4).sites == (Site("dropout", 0.5, (5, 6)),)
    with pytest.raises(UnsupportedNetwork, match="whatever shares its batch"):
        audit(Embedded(mixes_rows=True).eval(), padding)
