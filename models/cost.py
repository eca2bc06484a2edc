"""Cost: what a network and its committee would take to run, known before either exists."""

from __future__ import annotations

import torch
from torch import nn

from models.errors import ModelError
from models.inputs import encoding
from models.inputs.spec import InputSpec
from models.spec import CommitteeSpec
from uncertainty.dropout.probe import SiteRecorder

MAX_BANK = 2**28  # numbers in the masks of all members: 1 GiB in float32
MAX_ROW = 2**28  # bytes of the largest intermediate result for one input: 256 MiB


def check(outline: nn.Module, input_spec: InputSpec, committee: CommitteeSpec) -> None:
    """Refuse what would fill the memory although the file is small: huge images, or many masks of many units.

    Args:
        outline: the network in eval mode on the meta device, where a pass computes shapes alone.
        input_spec: what one input is.
        committee: how many members there would be.

    Raises:
        ModelError: an intermediate result or the masks would be too large.
        RuntimeError: the network does not take such inputs.
    """
    recorder = SiteRecorder(outline)
    with torch.inference_mode(), recorder:
        outline(encoding.blank(input_spec, device="meta"))
    if recorder.largest_output > MAX_ROW:
        raise ModelError(
            f"one input would take {recorder.largest_output} bytes in the network; at most {MAX_ROW} are allowed."
        )
    bank = committee.num_samples * recorder.mask_numel
    if bank > MAX_BANK:
        raise ModelError(
            f"the masks of {committee.num_samples} members would hold {bank} numbers; at most {MAX_BANK} are allowed."
        )
