"""The wrapper around transformers against the library itself."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dubio.models import NetworkSpec, TransformersNet, registry
from dubio.models.errors import ModelError
from dubio.models.networks.sequence_classifier import MASK_READY
from dubio.uncertainty import FeatureTap
from dubio.uncertainty.execution import masks
from tests.models.networks.transformers_models import BERT, DISTILBERT, build, tokens
from tests.quick import quick_committee

MODELS = [("bert", BERT), ("distilbert", DISTILBERT)]


def wrapped(architecture: str, settings: dict[str, Any]) -> tuple[TransformersNet, nn.Module]:
    """The network, and the library's model with the same weights and attention written out."""
    theirs = build(architecture, settings, attention="eager")
    network = TransformersNet(architecture, settings, num_classes=3).eval()
    network.model.load_state_dict(theirs.state_dict())
    return network, theirs


@pytest.mark.parametrize(("architecture", "settings"), MODELS)
def test_the_committee_is_the_loop_over_the_library_with_the_same_masks(
    architecture: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Attention dropout, which the network has in a kernel, acts where the library's own attention has it."""
    network, theirs = wrapped(architecture, settings)
    x = tokens(4)
    committee = quick_committee(network, x[:1], num_samples=6, seed=3)
    # In each layer on the attention weights and, of bert, behind the attention; behind the feed-forward part; once
    # behind the embeddings and before the head.
    kinds = Counter((site.kind, site.p) for site in committee.sites)
    hidden = 1 + (4 if architecture == "bert" else 2)
    assert kinds == {("attention", 0.3): 2, ("dropout", 0.2): hidden, ("dropout", 0.4): 1}

    keeps = masks.draw(committee.sites, 6, seed=3)
    member, calls = 0, iter(())

    def drop(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if p == 0 or not training:
            return input
        keep, site = next(calls)
        assert site.p == p
        return input * keep[member].to(input.dtype) / (1 - p)

    monkeypatch.setattr(nn.functional, "dropout", drop)
    theirs.train()
    members = []
    for member in range(6):  # noqa: B007  # `drop` reads it
        calls = iter(zip(keeps, committee.sites, strict=True))
        with torch.no_grad():
            members.append(theirs(input_ids=x, attention_mask=(x != 0).long()).logits)
        assert next(calls, None) is None
    monkeypatch.undo()
    due_KBC = torch.stack(members)
    torch.testing.assert_close(committee(x), due_KBC, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(committee.predictive_moments(x).mean, due_KBC.softmax(-1).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", sorted(MASK_READY))
def test_each_family_answers_as_with_the_mask_that_the_library_makes(architecture: str):
    common = {name: value for name, value in BERT.items() if name != "classifier_dropout"}
    settings = DISTILBERT if architecture == "distilbert" else {**common, "pad_token_id": 0}
    network = TransformersNet(architecture, settings, num_classes=3).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    x = tokens(5)
    with torch.no_grad():
        due = network.model(input_ids=x, attention_mask=(x != 0).long()).logits
        torch.testing.assert_close(network(x), due, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(x.float()), due, rtol=1e-4, atol=1e-5)
        assert float((due[0] - due[1]).abs().max()) > 1e-3
        assert bool(network(torch.zeros(1, 8)).isfinite().all())


def test_how_far_a_sequence_is_filled_up_changes_nothing():
    network, _ = wrapped("bert", BERT)
    x = tokens(3)
    with torch.no_grad():
        torch.testing.assert_close(network(nn.functional.pad(x, (0, 4))), network(x), rtol=1e-4, atol=1e-5)


def test_its_features_are_what_the_classifier_takes():
    network, _ = wrapped("bert", BERT)
    x = tokens(3)
    with torch.no_grad():
        tap = FeatureTap(network, x)
        assert tap.head == "model.classifier"
        assert torch.equal(tap(x)[1], network.model.bert(x, network._mask(x != 0)).pooler_output)


def test_a_checkpoint_may_name_it_and_a_folder_of_the_library_describes_it(tmp_path: Path):
    theirs = build("bert", BERT, classes=5)
    theirs.save_pretrained(tmp_path)
    arguments = TransformersNet.arguments(tmp_path)
    assert arguments == {"architecture": "bert", "config": BERT, "num_classes": 5}
    spec = NetworkSpec(class_path=registry.class_path(TransformersNet), init_args=arguments)
    weights = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    x = tokens(2)
    with torch.no_grad():
        due = theirs(input_ids=x, attention_mask=(x != 0).long()).logits
        torch.testing.assert_close(registry.build(spec, weights)(x), due, rtol=1e-4, atol=1e-5)
    assert registry.outline(spec, weights).model.classifier.weight.is_meta


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "gpt2"}, "`architecture` to be one of albert, bert"),
        ({"config": {"auto_map": "a"}}, "`config` to set what bert has.*'auto_map'"),
        ({"config": {"is_decoder": True}}, "'is_decoder'"),
        ({"config": {"_attn_implementation": "x"}}, "'_attn_implementation'"),
        ({"architecture": "distilbert", "config": {"sinusoidal_pos_embds": True}}, "'sinusoidal_pos_embds'"),
        ({"num_classes": 0}, "num_classes"),
        ({"vocabulary": 0}, "vocabulary"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        TransformersNet(**arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "config.json"), ("[]", "an object"), ("{", "config.json"), (json.dumps({"model_type": "t5"}), "t5")],
)
def test_another_folder_is_refused(content: str | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        TransformersNet.arguments(tmp_path)


def test_a_file_cannot_ask_for_more_layers_than_it_has_weights():
    weights = {f"model.{name}": tensor for name, tensor in build("bert", BERT).state_dict().items()}
    settings = {**BERT, "num_hidden_layers": 10**7}
    spec = NetworkSpec(class_path="dubio.models.TransformersNet", init_args={"config": settings, "num_classes": 3})
    with pytest.raises(ModelError, match="need more weights than the file has"):
        registry.outline(spec, weights)


def test_without_the_library_the_cure_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'transformers>=5'`"):
        TransformersNet()
