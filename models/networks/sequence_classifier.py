"""Sequence classifiers as the library transformers has them: token ids and a mask in, logits by name out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubio.models.errors import ModelError

# Families whose encoders take a mask of four axes as it is; others are given the tokens that are there, and make one.
MASK_READY = frozenset({"albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"})


class SequenceClassifier(nn.Module):
    """A network of token ids out of a model that takes `input_ids` and `attention_mask`, and names its `logits`.

    A token beyond the vocabulary counts as the nearest one within. The first token of a sequence is always attended to,
    so that a sequence of padding alone has an answer, too.

    Args:
        model: Such as `transformers.BertForSequenceClassification`; in the mode that the network is to be in.
        padding: Token that fills up shorter sequences; by default that of the model's `config`.

    Raises:
        ModelError: If it is not known what the padding or the vocabulary is.
    """

    def __init__(self, model: nn.Module, padding: int | None = None) -> None:
        super().__init__()
        config = getattr(model, "config", None)
        known = getattr(config, "pad_token_id", None) if padding is None else padding
        vocabulary = getattr(config, "vocab_size", None)
        if not isinstance(known, int) or not isinstance(vocabulary, int):
            raise ModelError(
                f"Expected {type(model).__name__} to have a `config` with `vocab_size` and `pad_token_id`, as those of "
                f"transformers have, but got {vocabulary} and {known}; set them, or give `padding`."
            )
        self.model = model
        self.padding, self.vocabulary = known, vocabulary
        self.mask_ready = getattr(config, "model_type", None) in MASK_READY
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of token ids ``[B, L]``, whole numbers of any type."""
        tokens_BL = x.flatten(1).clamp(0, self.vocabulary - 1).round().long()
        first_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device) == 0
        present_BL = (tokens_BL != self.padding) | first_L
        answer = self.model(input_ids=tokens_BL, attention_mask=self._mask(present_BL))
        logits_BC = getattr(answer, "logits", None)
        if not isinstance(logits_BC, Tensor):
            raise ModelError(
                f"Expected {type(self.model).__name__} to return an output with `logits`, but got "
                f"{type(answer).__name__}; take the class for sequence classification."
            )
        return logits_BC

    def _mask(self, present_BL: Tensor) -> Tensor:
        if not self.mask_ready:
            return present_BL.long()
        # Ready to be added to the scores of attention: the models would look whether anything is absent at all, and
        # what they do must not depend on the values of a row.
        dtype = next(self.model.parameters()).dtype
        zeros_BL = torch.zeros(present_BL.shape, dtype=dtype, device=present_BL.device)
        return zeros_BL.masked_fill(~present_BL, torch.finfo(dtype).min)[:, None, None, :]
