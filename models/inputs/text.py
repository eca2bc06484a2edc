"""Tokens: how a text becomes numbers, by a tokenizer whose vocabulary the checkpoint keeps.

The tokenizer is one of the `tokenizers` library, but a checkpoint holds its words alone and none of the library's own
files: those can name patterns that a hostile one would use to keep a server busy for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from dubio.models.errors import InvalidInput
from dubio.models.inputs.names import say_value
from dubio.models.spec import MAX_STRING, StrictModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, UNKNOWN = 0, 1  # tokens that every vocabulary begins with
SPECIAL = ("[PAD]", "[UNK]")
MAX_VOCABULARY = 2**16
MAX_LENGTH = 4096
# Characters of a text: far more than the longest sequence of tokens needs.
MAX_CHARACTERS = 2**16

# Characters of a text that are read, once it is in form NFKC: so many for each token that is wanted, and a few more.
# Words of common languages have four to eight; in form NFKC one character may become eighteen.
_READ_PER_TOKEN = 16
_READ_MORE = 1024
_BLANKS = " \t\r\n"

# A character, with its marks, of the scripts that put no blanks between words.
_NO_BLANKS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}][\p{M}\u30fc]*"

Word = Annotated[str, Field(min_length=1, max_length=MAX_STRING)]


class TokenizerSpec(StrictModel):
    """A tokenizer.

    A text is brought into Unicode's form NFKC, if so wanted into lower case, and divided into words and signs; each is
    looked up as a whole (``word``), or put together from the parts that the vocabulary has (``bpe``, Sennrich 2016). To
    ``word`` each character is one in scripts that put no blanks between words, such as Chinese, Japanese and Thai.
    Of a text the first 16 x length + 1024 characters in form NFKC are read, which hold more tokens than are wanted
    unless it is made of endless words or blanks.

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


def _spend_freely(units: int) -> None:
    pass


def _instance(row: int) -> str:
    return f"instances[{row}]"


class Tokens:
    """Reads texts.

    Args:
        spec: Of the tokenizer.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec

    def read(self, instances: Sequence[Any], spend: Callable[[int], None] = _spend_freely) -> NDArray[np.float32]:
        """Tokens ``[N, L]`` of texts, filled up with 0.

        Args:
            instances: The texts.
            spend: As the protocol says; a unit is a character in form NFKC.

        Raises:
            InvalidInput: If an instance is no text, or has no words.
        """
        return self.fill(self.split(instances, spend=spend))

    def split(
        self,
        instances: Sequence[Any],
        where: Callable[[int], str] = _instance,
        spend: Callable[[int], None] = _spend_freely,
    ) -> list[list[int]]:
        """The tokens of texts, also more than are wanted.

        Args:
            instances: The texts.
            where: Names one in messages.
            spend: As `read`.

        Raises:
            InvalidInput: As `read`.
        """
        tokens = []
        for row, instance in enumerate(instances):
            text, characters = _beginning(_text(instance, where(row)), self._most)
            spend(characters)
            tokens.append(self._tokenizer.encode(text).ids)
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

    def join(self, tokens: Sequence[int]) -> str:
        """A text as it was read: its words or parts with blanks between them, and those that are unknown as such."""
        return " ".join(self.spec.vocabulary[token] for token in tokens if token != PADDING)

    def decode(self, raw: Sequence[float]) -> str:
        """A text of these tokens, which is read as they are if each of them is a word of its own."""
        return self.join([int(token) for token in raw])

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

    @property
    def _most(self) -> int:
        return _READ_PER_TOKEN * self.spec.length + _READ_MORE

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


def _beginning(text: str, most: int) -> tuple[str, int]:
    """The first characters of a text that are at most so many in form NFKC, and how many they are then."""
    text = text.lstrip(_BLANKS)[:most]
    if text.isascii():
        return text, len(text)
    # One by one: Python takes the square of their number for marks that are piled up.
    grown = {character: len(normalize("NFKC", character)) for character in set(text)}
    lengths = np.cumsum([grown[character] for character in text])
    kept = int(np.searchsorted(lengths, most, side="right"))
    return text[:kept], int(lengths[kept - 1]) if kept else 0


def _text(instance: object, where: str) -> str:
    if not isinstance(instance, str):
        raise InvalidInput(f"Expected {where} to be a text, but got {say_value(instance)}.")
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
