"""Dropout in compiled code, which no mask can reach, is refused, and never left out in silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.errors import UncertaintyError, UnsupportedNetwork, UnsupportedSite

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:dropout option adds dropout"),
]
X = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Layers that may be compiled, and a dropout site that is not."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = first
        self.rest = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


class Recurrent(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, num_layers=layers, dropout=0.3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.unsqueeze(1))[0][:, -1]


def _drop(x: Tensor) -> Tensor:
    return F.dropout(x, 0.25, training=False)


class CallsScripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.call = torch.jit.script(_drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def _layers(kind: type[nn.Module] = nn.Dropout) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), kind(0.25)).eval()


HIDDEN = {
    "script": (lambda: torch.jit.script(_layers()), r"'first' \(dropout, p=0.25\)"),
    "trace": (lambda: torch.jit.trace(_layers(), X), r"'first' \(dropout, p=0.25\)"),
    "alpha": (lambda: torch.jit.script(_layers(nn.AlphaDropout)), r"'first' \(alpha_dropout, p=0.25\)"),
    "function": (CallsScripted, r"'first' \(dropout, p=0.25\)"),
    "lstm": (lambda: torch.jit.script(Recurrent(2).eval()), r"'first' \(lstm, p=0.3\)"),
}


@pytest.mark.parametrize(("build", "named"), HIDDEN.values(), ids=HIDDEN)
def test_dropout_that_torch_jit_compiled_is_refused_beside_another_site(build, named):
    with pytest.raises(UnsupportedSite, match=f"dropout site {named} is called by code .* before torch.jit.script"):
        audit(Net(build()).eval(), X)


@pytest.mark.parametrize(("build", "named"), HIDDEN.values(), ids=HIDDEN)
def test_it_may_be_left_out_by_name_and_that_is_said(build, named):
    plan = audit(Net(build()).eval(), X, Selection(("rest.*",)))
    assert [site.name for site in plan.sites] == ["rest.2"]
    assert plan.left_out == ("first",)


def test_a_network_that_is_compiled_as_a_whole_is_refused_for_the_same_reason():
    with pytest.raises(UnsupportedSite, match=r"torch\.jit compiled"):
        audit(torch.jit.script(Net(_layers()).eval()), X)


@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()),
        lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0)).eval()),
        lambda: torch.jit.script(Recurrent(1).eval()),  # nothing lies between the layers of one
    ],
)
def test_compiled_code_without_dropout_is_fine(build):
    plan = audit(Net(build()).eval(), X)
    assert [site.name for site in plan.sites] == ["rest.2"]
    assert plan.left_out == ()


@pytest.mark.parametrize("layers", [1, 2])
def test_a_recurrent_layer_that_python_calls_is_no_compiled_one(layers):
    assert len(audit(Net(Recurrent(layers)).eval(), X).sites) == layers


def test_a_network_that_torch_compile_made_is_refused_with_a_cure_that_works():
    network = Net(_layers()).eval()
    with pytest.raises(UnsupportedNetwork, match=r"take the one from before: `network\._orig_mod`\."):
        audit(torch.compile(network), X)
    assert len(audit(torch.compile(network)._orig_mod, X).sites) == 2

    inside = Net(torch.compile(_layers())).eval()
    with pytest.raises(UnsupportedNetwork, match="its module 'first'") as caught:
        audit(inside, X)
    cure = str(caught.value).split("`")[1]
    assert cure == "network.set_submodule('first', network.get_submodule('first')._orig_mod)"
    inside.set_submodule("first", inside.get_submodule("first")._orig_mod)
    assert len(audit(inside, X).sites) == 2


def test_a_call_that_torch_compile_replaced_is_refused():
    in_place, forward = Net(_layers()).eval(), Net(_layers()).eval()
    in_place.rest.compile()
    forward.rest.forward = torch.compile(forward.rest.forward)
    for network in (in_place, forward):
        with pytest.raises(UncertaintyError, match=r"the call of 'rest' was compiled by torch.compile.*without\."):
            audit(network, X)
