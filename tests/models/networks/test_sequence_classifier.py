from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from dubio.models import SequenceClassifier
from dubio.models.errors import ModelError
from dubio.uncertainty.errors import UnsupportedNetwork
from tests.models.networks.transformers_models import BERT, build, tokens
from tests.quick import quick_committee


class Bag(nn.Module):
    """A model of nobody's library with the same way of being called."""

    def __init__(self, **config: object) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.table = nn.Embedding(40, 6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        assert attention_mask.dtype == torch.int64
        there = attention_mask.unsqueeze(-1)
        mean = (self.table(input_ids) * there).sum(1) / there.sum(1)
        return SimpleNamespace(logits=self.head(self.drop(mean)))


def test_a_model_of_another_family_gets_the_tokens_that_are_there():
    torch.manual_seed(0)
    model = Bag(vocab_size=40, pad_token_id=0).eval()
    network, x = SequenceClassifier(model), tokens(3)
    due = torch.stack([model.head(model.table(row[row != 0]).mean(0)) for row in x])
    torch.testing.assert_close(network(x), due)
    assert [site.p for site in quick_committee(network, x, num_samples=4).sites] == [0.5]


def test_it_is_in_the_mode_of_its_model():
    model = build("bert", BERT)
    assert not any(module.training for module in SequenceClassifier(model).modules())
    assert all(module.training for module in SequenceClassifier(model.train()).modules())


def test_what_is_not_known_is_asked_for():
    with pytest.raises(ModelError, match=r"Bag to have a `config` with `vocab_size` and `pad_token_id`.*40 and None"):
        SequenceClassifier(Bag(vocab_size=40))
    assert SequenceClassifier(Bag(vocab_size=40), padding=0).padding == 0


def test_a_model_without_logits_is_refused():
    network = SequenceClassifier(build("bert", BERT))
    network.model = network.model.bert
    with pytest.raises(ModelError, match=r"output with `logits`.*for sequence classification"):
        network(tokens(1))


def test_an_output_by_name_is_refused_with_the_cure():
    with pytest.raises(UnsupportedNetwork, match=r"SequenceClassifierOutput\. Return its `logits`.*SequenceClassifier"):
        quick_committee(build("bert", BERT), tokens(1), num_samples=4)
