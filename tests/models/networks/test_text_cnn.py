from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dubio.models import TextCNN

TOKENS = {"vocabulary": 11, "features": 5, "windows": (1, 2, 3), "width": 4, "padding": 0, "num_classes": 3}
X = torch.tensor([[3, 7, 2, 9, 0, 0], [4, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])


def net(**changes: object) -> TextCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextCNN(**{**TOKENS, **changes}).eval()


def test_logits_are_those_of_the_paper_window_by_window():
    network = net()
    tokens = X[2]
    words_LF = network.steps.table.weight[tokens]
    found = []
    for size, convolution in zip((1, 2, 3), network.windows, strict=True):
        zeros = torch.zeros(size - 1, 5)
        padded = torch.cat([zeros, words_LF, zeros])
        values = [
            F.relu((convolution.weight * padded[at : at + size].T).sum((1, 2)) + convolution.bias)
            for at in range(len(padded) - size + 1)
        ]
        found.append(torch.stack(values).amax(0))
    torch.testing.assert_close(network(X[2:])[0], network.head(torch.cat(found)))


def test_how_far_a_text_is_filled_up_changes_no_logit():
    network = net()
    longer = F.pad(X, (0, 9))
    torch.testing.assert_close(network(longer), network(X), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network(X[:1, :4]), network(X[:1]), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(net(padding=None)(longer), net(padding=None)(X))


def test_whole_words_are_dropped_in_training():
    network = net(word_rate=0.5, embedding_rate=0.0).train()
    dropped_BLF = network.drop_words(torch.ones(200, 6, 5))
    kept_BL = dropped_BLF[..., 0] > 0
    assert (dropped_BLF == torch.where(kept_BL, 2.0, 0.0).unsqueeze(-1)).all()
    assert 0.4 < kept_BL.float().mean() < 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": 0}, "vocabulary"),
        ({"features": 0}, "features"),
        ({"windows": (1, 0)}, "windows"),
        ({"windows": ()}, "windows"),
        ({"width": -1}, "width"),
        ({"num_classes": 0}, "num_classes"),
        ({"word_rate": 1.5}, "word_rate"),
        ({"embedding_rate": -0.1}, "embedding_rate"),
        ({"head_rate": 2.0}, "head_rate"),
    ],
)
def test_wrong_sizes_and_rates_are_refused_by_name(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        TextCNN(**{**TOKENS, **changes})
