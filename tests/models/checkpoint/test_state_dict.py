from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dubio.models.checkpoint.file import read_content
from dubio.models.checkpoint.state_dict import find, sha256
from dubio.models.errors import UnreadableCheckpoint


class Net(nn.Module):
    """A body with a buffer, and a head."""

    def __init__(self, classes: int = 3, width: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.5))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.fixture
def net() -> Net:
    """The network whose weights are looked for."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net()


def found(folder: Path, content: Any, prefix: str | None = None) -> dict[str, Tensor]:
    """What is found in a file with that content."""
    torch.save(content, folder / "weights.pt")
    return find(folder / "weights.pt", read_content(folder / "weights.pt"), Net(), prefix)


def under(net: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in net.state_dict().items()}


def same(weights: dict[str, Tensor], net: nn.Module) -> bool:
    expected = net.state_dict()
    return list(weights) == list(expected) and all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "_orig_mod.", "module._orig_mod.model."])
@pytest.mark.parametrize("keys", [(), ("state_dict",), ("model",), ("checkpoint", "model_state_dict")])
def test_weights_are_found_wherever_they_are(keys: tuple[str, ...], prefix: str, net: Net, tmp_path: Path):
    content: Any = under(net, prefix)
    for key in reversed(keys):
        content = {"epoch": 3, key: content}
    assert same(found(tmp_path, content), net)
    assert same(found(tmp_path, content, prefix), net)
    assert same(found(tmp_path, content, "".join(f"{key}." for key in keys) + prefix), net)


class Wrapper(nn.Module):
    """All of it is one module."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Net()


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "network.model."])
def test_a_file_may_hold_the_names_of_what_a_wrapper_wraps(prefix: str, net: Net, tmp_path: Path):
    torch.save({"state_dict": under(net, prefix)}, tmp_path / "weights.pt")
    weights = find(tmp_path / "weights.pt", read_content(tmp_path / "weights.pt"), Wrapper())
    assert list(weights) == list(Wrapper().state_dict())
    assert all(torch.equal(weights[f"model.{name}"], tensor) for name, tensor in net.state_dict().items())


def test_what_is_beside_the_network_is_left_out(net: Net, tmp_path: Path):
    optimizer = torch.optim.Adam(net.parameters())
    nn.functional.cross_entropy(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    optimizer.step()
    state = {**under(net, "backbone."), "criterion.weight": torch.ones(3)}
    assert same(found(tmp_path, {"state_dict": state, "optimizer": optimizer.state_dict()}), net)


def test_places_that_older_releases_of_transformers_saved_are_left_out(net: Net, tmp_path: Path):
    saved = under(net, "")
    assert same(found(tmp_path, {**saved, "embeddings.position_ids": torch.arange(512)[None]}), net)
    for places in (
        torch.arange(1, 513)[None],
        torch.zeros(4),
        torch.ones(4, dtype=torch.complex64),
    ):  # which are others
        with pytest.raises(UnreadableCheckpoint, match=r"1 unexpected \('embeddings\.position_ids'\)"):
            found(tmp_path, {**saved, "embeddings.position_ids": places})


def test_a_state_dict_of_torch_itself(net: Net, tmp_path: Path):
    assert same(found(tmp_path, net.state_dict()), net)  # an ordered dict with metadata
    assert same(found(tmp_path, {"model": net.state_dict()}), net)


def test_what_validates_goes_before_what_an_averaging_callback_keeps(net: Net, tmp_path: Path):
    raw = Net()
    content = {"current_model_state": under(raw, "network."), "state_dict": under(net, "network.")}
    assert same(found(tmp_path, content), net)
    assert same(found(tmp_path, content, "current_model_state.network."), raw)


def test_two_networks_that_fit_are_a_choice(net: Net, tmp_path: Path):
    teacher = Net()
    content = {"state_dict": {**under(net, "student."), **under(teacher, "teacher.")}}
    with pytest.raises(UnreadableCheckpoint, match=r"fit the network 2 times") as caught:
        found(tmp_path, content)
    assert "--key_prefix 'state_dict.student.'" in str(caught.value)
    assert "--key_prefix 'state_dict.teacher.'" in str(caught.value)
    assert same(found(tmp_path, content, "teacher."), teacher)
    assert same(found(tmp_path, content, "state_dict.student."), net)


def test_floats_take_the_precision_of_the_network(net: Net, tmp_path: Path):
    weights = found(tmp_path, net.half().state_dict())
    assert weights["head.weight"].dtype == torch.float32
    assert torch.equal(weights["head.weight"], net.state_dict()["head.weight"].float())
    assert weights["body.1.num_batches_tracked"].dtype == torch.int64


def test_what_does_not_fit_is_named_by_kind(net: Net, tmp_path: Path):
    state = under(net, "backbone.")
    del state["backbone.body.0.bias"]
    state["backbone.extra.weight"] = torch.ones(1)
    state["backbone.head.weight"] = torch.ones(7, 5)
    with pytest.raises(UnreadableCheckpoint) as caught:
        found(tmp_path, {"model": state})
    message = str(caught.value)
    assert str(tmp_path / "weights.pt") in message
    assert "the nearest is `--key_prefix 'model.backbone.'`" in message
    assert "1 missing ('body.0.bias')" in message
    assert "1 unexpected ('extra.weight')" in message
    assert "1 misshapen ('head.weight' should be float32 [3, 5], but is float32 [7, 5])" in message
    assert "`model.init_args.network`" in message


def test_many_names_are_counted_and_few_are_listed(net: Net, tmp_path: Path):
    state = {name: tensor for name, tensor in net.state_dict().items() if name.startswith("head")}
    with pytest.raises(UnreadableCheckpoint, match=r"7 missing \('body.0.weight', 'body.0.bias', .*, \.\.\.\)"):
        found(tmp_path, state)


def test_a_wrong_prefix_is_told_the_right_one(net: Net, tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match=r"under the prefix 'modle\.'; `--key_prefix 'module\.'` would fit"):
        found(tmp_path, under(net, "module."), "modle.")


@pytest.mark.parametrize(
    ("content", "has"),
    [
        ({"conv1.kernel": torch.ones(2)}, "has 'conv1.kernel'"),
        ({"epoch": 3}, "has no tensors by name"),
        ({}, "no tensors"),
    ],
)
def test_another_networks_file_shows_what_it_has(content: dict[str, Any], has: str, tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match=r"Net needs 'body\.0\.weight'") as caught:
        found(tmp_path, content)
    assert has in str(caught.value)


def test_a_tensor_that_claims_more_than_the_file_has_is_refused(tmp_path: Path):
    with torch.device("meta"):
        wide = Net(width=10**4)
    four_bytes = {
        name: torch.zeros((), dtype=each.dtype).expand(each.shape) for name, each in wide.state_dict().items()
    }
    torch.save(four_bytes, tmp_path / "weights.pt")
    with pytest.raises(UnreadableCheckpoint, match=r"claims \d+ bytes, but the file has 4"):
        find(tmp_path / "weights.pt", read_content(tmp_path / "weights.pt"), wide)


def test_tensors_that_share_their_bytes_and_claim_more_than_the_file_has_are_refused(tmp_path: Path):
    wide = Net(width=500)
    bytes_ = torch.zeros(2000)
    state = {
        name: bytes_[: each.numel()].view(each.shape) if each.is_floating_point() else each
        for name, each in wide.state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(UnreadableCheckpoint, match=r"the tensors claim \d+ bytes, but the file has"):
        find(tmp_path / "weights.pt", read_content(tmp_path / "weights.pt"), wide)


def test_a_sparse_tensor_is_refused(net: Net, tmp_path: Path):
    content = {**net.state_dict(), "head.weight": net.state_dict()["head.weight"].to_sparse()}
    (tmp_path / "weights.pt").write_bytes(b"of any size")
    with pytest.raises(UnreadableCheckpoint, match=r"field `head\.weight`: expected a dense tensor"):
        find(tmp_path / "weights.pt", content, Net())


A = torch.tensor([[1.0, 2.0]])
B = torch.tensor(3, dtype=torch.int64)


def test_the_hash_covers_names_types_shapes_and_bytes_in_the_order_of_the_names():
    expected = hashlib.sha256(
        b"a torch.float32 (1, 2);" + A.numpy().tobytes() + b"b torch.int64 ();" + B.numpy().tobytes()
    )
    assert sha256({"b": B, "a": A}) == expected.hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"a": A, "c": B},
        {"a": A},
        {"a": A.double(), "b": B},
        {"a": A.reshape(2, 1), "b": B},
        {"a": A.nextafter(torch.tensor(9.0)), "b": B},
    ],
    ids=["name", "missing", "type", "shape", "last bit"],
)
def test_any_difference_changes_the_hash(other: dict[str, Tensor]):
    assert sha256(other) != sha256({"a": A, "b": B})


def test_layout_in_memory_does_not_change_the_hash():
    matrix = torch.arange(6.0).reshape(2, 3)
    assert sha256({"a": matrix.T.contiguous().T}) == sha256({"a": matrix})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64])
def test_types_that_numpy_lacks_are_hashed_too(dtype: torch.dtype):
    ones, zeros = torch.ones(2, dtype=dtype), torch.zeros(2, dtype=dtype)
    assert sha256({"a": ones}) != sha256({"a": zeros})
