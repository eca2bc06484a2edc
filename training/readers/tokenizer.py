"""A tokenizer learned from training texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from dubio.models import InputSpec
from dubio.models.inputs.text import MAX_LENGTH, MAX_VOCABULARY, SPECIAL, TokenizerSpec, blank
from dubio.models.spec import MAX_STRING
from dubio.training.errors import TrainingError

Kind = Literal["word", "bpe"]


def learn(
    texts: Sequence[str], kind: Kind = "word", size: int = 8000, lowercase: bool = True, length: int = 32
) -> TokenizerSpec:
    """Learns which words or parts there are; of equally frequent ones the alphabet decides.

    Args:
        texts: Of the training rows alone.
        kind: Whole words, or parts of words that are put together by `bpe`.
        size: Most tokens that the vocabulary may have; the most frequent are kept.
        lowercase: Whether capitals count as small letters.
        length: Tokens of an input.

    Raises:
        TrainingError: If a number is out of bounds, or the texts have no words.
    """
    from tokenizers import models, trainers

    if not len(SPECIAL) < size <= MAX_VOCABULARY:
        raise TrainingError(
            f"Expected `data.init_args.tokens` to be from {len(SPECIAL) + 1} to {MAX_VOCABULARY}, but got {size}."
        )
    if not 1 <= length <= MAX_LENGTH:
        raise TrainingError(f"Expected `data.init_args.length` to be from 1 to {MAX_LENGTH}, but got {length}.")
    special, unknown = list(SPECIAL), SPECIAL[1]
    if kind == "word":
        tokenizer = blank(models.WordLevel(unk_token=unknown), lowercase, characters=True)
        trainer: Any = trainers.WordLevelTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    else:
        tokenizer = blank(models.BPE(unk_token=unknown), lowercase)
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, max_token_length=MAX_STRING // 2, show_progress=False
        )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = [word for word in sorted(model["vocab"], key=model["vocab"].get) if len(word) <= MAX_STRING]
    if len(vocabulary) <= len(SPECIAL):
        raise TrainingError("Expected words in the training texts, but there are none.")
    merges = [" ".join(pair) for pair in model.get("merges", [])]
    return TokenizerSpec(kind=kind, vocabulary=vocabulary, merges=merges, lowercase=lowercase, length=length)


def describe(spec: TokenizerSpec) -> InputSpec:
    """Input that this tokenizer makes of texts."""
    return InputSpec(
        kind="text",
        shape=(spec.length,),
        mean=(0.0,),
        std=(1.0,),
        low=0.0,
        high=float(len(spec.vocabulary) - 1),
        tokenizer=spec,
    )
