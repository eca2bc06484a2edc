"""Tokens: how a text becomes numbers, by a tokenizer whose vocabulary the checkpoint keeps.

The tokenizer is one of the `tokenizers` library, but a checkpoint holds its words alone and none of the library's own
files: those can name patterns that a hostile one would use to keep a server busy for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from dubio.models.errors import InvalidInput
from dubio.models.spec import MAX_STRING, StrictModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, UNKNOWN = 0, 1  # tokens that every vocabulary begins with
SPECIAL = ("[PAD]", "[UNK]")
MAX_VOCABULARY = 2**16
MAX_LENGTH = 4096
# Characters of a text: far more than the longest sequence of tokens needs.
MAX_CHARACTERS = 2**16

# A character, with its marks, of the scripts that put no blanks between words.
_NO_BLANKS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}][\p{M}\u30fc]*"

Word = Annotated[str, Field(min_length=1, max_length=MAX_STRING)]


class TokenizerSpec(StrictModel):
    """A tokenizer.

    A text is brought into Unicode's form NFKC, if so wanted into lower case, and divided into words and signs; each is
    looked up as a whole (``word``), or put together from the parts that the vocabulary has (``bpe``, Sennrich 2016). To
    ``word`` each character is one in scripts that put no blanks between words, such as Chinese, Japanese and Thai.

    Attributes:
        kind: ``word`` or ``bpe``.
        vocabulary: Words or parts in the order of their tokens; the first two are `SPECIAL`.
        merges: Of ``bpe``: pairs of parts that become one, most frequent first, each with a space between.
        lowercase: Whether capitals count as small letters.
        length: Tokens of an input; longer texts are cut, shorter ones filled up with token 0.
    """

    kind: Literal["word", "bpe"]
    vocabulary: Annotated[list[Word], Field(min_length=3, max_length=MAX_VOCABULARY)]
    merges: Annotated[list[Word], Field(max_length=MAX_VOCABULARY)]
    lowercase: bool
    length: Annotated[int, Field(ge=1, le=MAX_LENGTH)]

    @model_validator(mode="after")
    def _consistent(self) -> TokenizerSpec:
        if tuple(self.vocabulary[:2]) != SPECIAL or len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError(f"Expected the vocabulary to begin with {SPECIAL} and to have every word once.")
        known = set(self.vocabulary)
        for merge in self.merges:
            parts = merge.split(" ")
            if len(parts) != 2 or not {*parts, "".join(parts)} <= known:
                raise ValueError(f"Expected a merge to be two parts of the vocabulary, but got {merge[:40]!r}.")
        if self.merges and self.kind == "word":
            raise ValueError("Expected no merges, because whole words are looked up.")
        return self


def _instance(row: int) -> str:
    return f"instances[{row}]"


class Tokens:
    """Reads texts.

    Args:
        spec: Of the tokenizer.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec

    def read(self, instances: Sequence[Any]) -> NDArray[np.float32]:
        """Tokens ``[N, L]`` of texts, filled up with 0.

        Raises:
            InvalidInput: If an instance is no text, or has no words.
        """
        return self.fill(self.split(instances))

    def split(self, instances: Sequence[Any], where: Callable[[int], str] = _instance) -> list[list[int]]:
        """All tokens of texts, however many.

        Args:
            instances: The texts.
            where: Names one in messages.

        Raises:
            InvalidInput: As `read`.
        """
        tokens = []
        for row, instance in enumerate(instances):
            tokens.append(self._tokenizer.encode(_text(instance, where(row))).ids)
            if not tokens[-1]:
                raise InvalidInput(f"Expected {where(row)} to hold words, but got {instance[:40]!r}.")
        return tokens

    def fill(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Tokens ``[N, L]``, each text's cut or filled up with 0."""
        tokens_NL = np.zeros((len(tokens), self.spec.length), dtype=np.float32)
        for row, ids in enumerate(tokens):
            ids = ids[: self.spec.length]
            tokens_NL[row, : len(ids)] = ids
        return tokens_NL

    def example(self) -> str:
        """A text to try."""
        words = [word for word in self.spec.vocabulary[len(SPECIAL) :] if word.isalpha()]
        return " ".join(words[:4] or self.spec.vocabulary[len(SPECIAL) :][:4])

    def outside(self, raw: Tensor) -> Tensor:
        """Whether a text has no word that the vocabulary knows, ``[B]``.

        Args:
            raw: Tokens ``[B, L]``.
        """
        return torch.isin(raw, torch.tensor([PADDING, UNKNOWN], dtype=raw.dtype)).all(1)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import models

        ids = {word: index for index, word in enumerate(self.spec.vocabulary)}
        if self.spec.kind == "word":
            return blank(models.WordLevel(ids, unk_token=SPECIAL[UNKNOWN]), self.spec.lowercase, characters=True)
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in self.spec.merges)]
        return blank(models.BPE(ids, pairs, unk_token=SPECIAL[UNKNOWN]), self.spec.lowercase)


def blank(model: Any, lowercase: bool, characters: bool = False) -> Tokenizer:
    """A tokenizer of the library around a model of its, which divides texts as all of ours do.

    Args:
        model: The model.
        lowercase: Whether capitals count as small letters.
        characters: Whether characters of scripts without blanks between words are words of their own; a model that puts
            words together from parts finds them by itself.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    words = pre_tokenizers.BertPreTokenizer()
    apart = [pre_tokenizers.Split(Regex(_NO_BLANKS), "isolated")] if characters else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*apart, words])
    return tokenizer


def _text(instance: object, where: str) -> str:
    if not isinstance(instance, str):
        raise InvalidInput(f"Expected {where} to be a text, but got a value of type {type(instance).__name__}.")
    if len(instance) > MAX_CHARACTERS:
        raise InvalidInput(
            f"Expected {where} to have at most {MAX_CHARACTERS} characters, but it has {len(instance)}; shorten it."
        )
    try:
        instance.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"Expected {where} to be valid Unicode, but character {error.start} is half of a pair."
        ) from error
    return instance
