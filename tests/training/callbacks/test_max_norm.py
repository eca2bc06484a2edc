from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.optim import SGD

from dubio.models import ConvNet
from dubio.training import Classifier, Digits, MaxNorm
from dubio.training.errors import TrainingError

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")


class Plain(LightningModule):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network


def _lengths(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().flatten(1).square().sum(1).sqrt()


def test_long_weights_are_shortened_in_their_direction_and_short_ones_left_alone():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0, 4.0], [0.1, 0.2, 0.2]]))
        layer.bias.copy_(torch.tensor([50.0, -60.0]))
    MaxNorm(c=2.0).shorten(Plain(layer))
    # 3-4-5: length 5 becomes 2.
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[1.2, 0.0, 1.6], [0.1, 0.2, 0.2]]))
    assert layer.bias.tolist() == [50.0, -60.0]


@pytest.mark.parametrize("head", [True, False])
def test_a_fit_never_leaves_the_ball(tmp_path: Path, digits: Digits, head: bool):
    torch.manual_seed(0)
    network = ConvNet(image_size=8, widths=[4], rates=[0.2], dense=8)
    model = Classifier(network, optimizer=partial(SGD, lr=0.5))
    settings = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    fit = Trainer(max_steps=20, accelerator="cpu", callbacks=[MaxNorm(c=0.7, head=head)], **settings)
    fit.fit(model, digits)
    kernels = [network.body[0][0].weight, network.body[0][3].weight, network.body[2].weight]
    lengths = torch.cat([_lengths(weight) for weight in kernels])
    # The constraint bites: some unit lies on the boundary, and none beyond it.
    assert 0.7 * (1 - 1e-4) < float(lengths.max()) <= 0.7 * (1 + 1e-4)
    assert (float(_lengths(network.head.weight).max()) <= 0.7 * (1 + 1e-4)) == head


def test_a_length_that_is_none_is_refused():
    with pytest.raises(TrainingError, match="`c`, the largest length"):
        MaxNorm(c=0)


def test_shards_are_refused():
    trainer = type("T", (), {"strategy": type("FSDPStrategy", (), {})()})()
    with pytest.raises(TrainingError, match="FSDP shards"):
        MaxNorm().setup(trainer, None, "fit")
