from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dubio.models.errors import InvalidInput
from dubio.models.inputs.text import MAX_CHARACTERS, TokenizerSpec, Tokens, _beginning

WORDS = ["[PAD]", "[UNK]", "the", "cat", "sat", ",", "file", "]"]
PARTS = ["[PAD]", "[UNK]", "l", "o", "w", "e", "r", "lo", "low", "er"]
MERGES = ["l o", "lo w", "e r"]


def words(**changes: object) -> TokenizerSpec:
    fields = {"kind": "word", "vocabulary": WORDS, "merges": [], "lowercase": True, "length": 6}
    return TokenizerSpec.model_validate({**fields, **changes})


def parts(**changes: object) -> TokenizerSpec:
    return words(**{"kind": "bpe", "vocabulary": PARTS, "merges": MERGES, **changes})


def by_hand(text: str) -> list[int]:
    """Words and signs one by one, looked up in the list."""
    found = re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFKC", text).lower())
    return [WORDS.index(word) if word in WORDS else 1 for word in found]


def merged_by_hand(word: str) -> list[int]:
    """Sennrich's algorithm: of all pairs side by side, the most frequent of the training becomes one."""
    pieces = list(word)
    while pairs := [pair for pair in MERGES if pair in {f"{a} {b}" for a, b in pairwise(pieces)}]:
        left, right = pairs[0].split(" ")
        at = next(i for i in range(len(pieces) - 1) if pieces[i : i + 2] == [left, right])
        pieces[at : at + 2] = [left + right]
    return [PARTS.index(piece) if piece in PARTS else 1 for piece in pieces]


@pytest.mark.parametrize("text", ["The cat sat", "the CAT, the dog", "ﬁle,file", "cat\tcat\n cat", "[PAD] cat [UNK]"])
def test_words_are_looked_up_and_filled_up_with_0(text: str):
    due = by_hand(text)
    tokens = Tokens(words(length=12)).read([text])
    assert tokens.dtype == np.float32
    assert tokens.tolist() == [due + [0] * (12 - len(due))]


@pytest.mark.parametrize("word", ["low", "lower", "wollow", "eerrol", "lox"])
def test_parts_of_words_are_merged_in_the_order_of_the_merges(word: str):
    due = merged_by_hand(word)
    assert Tokens(parts(length=8)).read([word]).tolist() == [due + [0] * (8 - len(due))]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("\u4eca\u5929\u5929\u6c14\u3002", ["\u4eca", "\u5929", "\u5929", "\u6c14", "\u3002"]),
        ("the\u5929cat", ["the", "\u5929", "cat"]),
        ("\u30b9\u30fc\u30d1\u30fc", ["\u30b9\u30fc", "\u30d1\u30fc"]),
        ("\u0e07\u0e48\u0e32\u0e22", ["\u0e07\u0e48", "\u0e32", "\u0e22"]),
        ("\ud55c\uad6d\uc5b4 \uc88b\ub2e4", ["\ud55c\uad6d\uc5b4", "\uc88b\ub2e4"]),
        ("caf\u00e9 na\u00efve", ["caf\u00e9", "na\u00efve"]),
    ],
    ids=["chinese", "mixed", "japanese", "thai", "korean", "latin"],
)
def test_where_no_blanks_divide_words_each_character_is_one(text: str, pieces: list[str]):
    vocabulary = [*WORDS, *dict.fromkeys(piece for piece in pieces if piece not in WORDS)]
    tokens = Tokens(words(vocabulary=vocabulary)).read([text])[0]
    assert [vocabulary[int(token)] for token in tokens if token] == pieces


def test_capitals_count_only_where_they_are_kept():
    assert Tokens(words(lowercase=False)).read(["The the"])[0, :2].tolist() == [1, 2]


def test_a_longer_text_is_cut_and_no_text_can_write_the_filling():
    assert Tokens(words(length=2)).read(["the cat sat"]).tolist() == [[2, 3]]
    assert 0 not in Tokens(words(length=3)).read(["[PAD]"])


def test_a_text_is_read_alike_whatever_comes_with_it():
    texts = ["the cat", "sat , file sat the cat", "nothing known"]
    together = Tokens(words()).read(texts)
    np.testing.assert_array_equal(together, np.concatenate([Tokens(words()).read([text]) for text in texts]))


def test_only_a_text_without_any_known_word_is_outside():
    tokens = Tokens(words())
    assert tokens.outside(torch.from_numpy(tokens.read(["dogs bark", "dogs sat", "the cat"]))).tolist() == [
        True,
        False,
        False,
    ]


def test_the_example_is_a_text_of_known_words():
    for spec in (words(), parts()):
        tokens = Tokens(spec)
        assert not tokens.outside(torch.from_numpy(tokens.read([tokens.example()]))).any()


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        (None, r"instances\[1\] to be a text, but got null[.]"),
        (True, "got true[.]"),
        (3, "got the number 3[.]"),
        (["the"], "got a list of 1[.]"),
        ({"text": "the"}, "got an object[.]"),
        (b"the", "got a value of Python's type bytes[.]"),
        ("", "to hold words"),
        (" \t\n\u00a0", "to hold words"),
        ("cat \ud800", "character 4 is half of a pair"),
        ("a" * (MAX_CHARACTERS + 1), f"at most {MAX_CHARACTERS} characters, but it has {MAX_CHARACTERS + 1}"),
    ],
)
def test_what_is_no_text_is_refused_by_its_number(instance: object, message: str):
    with pytest.raises(InvalidInput, match=message) as caught:
        Tokens(words()).read(["the cat", instance])
    assert "instances[1]" in str(caught.value)


@pytest.mark.parametrize("spec", [words(length=9), parts(length=9)], ids=["word", "bpe"])
@pytest.mark.parametrize(
    "text", ["\x00", "a\x00the", "\u202ethe", "\U0001f600" * 50, "\ufdfa" * 300, "l" * MAX_CHARACTERS]
)
def test_odd_texts_become_tokens_of_the_vocabulary(spec: TokenizerSpec, text: str):
    try:
        tokens = Tokens(spec).read([text])
    except InvalidInput:
        return
    assert tokens.shape == (1, 9)
    assert ((tokens >= 0) & (tokens < len(spec.vocabulary)) & (tokens == tokens.round())).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "regex"}, "kind"),
        ({"vocabulary": ["the", *WORDS]}, "begin with"),
        ({"vocabulary": [*WORDS, "cat"]}, "every word once"),
        ({"vocabulary": [*WORDS, "x" * 257]}, "256"),
        ({"vocabulary": [*WORDS, ""]}, "at least 1"),
        ({"vocabulary": [*WORDS, "\ud800"]}, "vocabulary"),
        ({"vocabulary": [*WORDS, 7]}, "string"),
        ({"vocabulary": WORDS[:2]}, "at least 3"),
        ({"merges": ["the cat"]}, "merge"),
        ({"kind": "bpe", "merges": ["the dog"]}, "two parts of the vocabulary"),
        ({"kind": "bpe", "merges": ["the"]}, "two parts of the vocabulary"),
        ({"length": 0}, "length"),
        ({"length": 4097}, "length"),
        ({"length": True}, "length"),
        ({"lowercase": 1}, "lowercase"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}}, "pre_tokenizer"),
    ],
)
def test_a_tokenizer_that_contradicts_itself_or_brings_a_pattern_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        words(**changes)


def whole(spec: TokenizerSpec, text: str) -> list[int]:
    """The first tokens of all of the text."""
    ids = Tokens(spec)._tokenizer.encode(text).ids[: spec.length]
    return ids + [0] * (spec.length - len(ids))


@pytest.mark.parametrize("spec", [words(length=50), parts(length=50)], ids=["word", "bpe"])
@pytest.mark.parametrize(
    "text",
    [
        "The cat sat, " * 5000,
        "ﬁle,file 字字ー字 Über low lower " * 2000,
        "字" * 60000,
        "\n\n    cat\t" * 5000,
        "\ufdfa" * 60000,
        "e\u0301\u0316 " * 10000,
        "wollow " * 90,
        " \n" * 20000 + "the cat",
    ],
)
def test_the_beginning_of_a_long_text_is_read_as_all_of_it_would_be(spec: TokenizerSpec, text: str):
    assert Tokens(spec).read([text]).tolist() == [whole(spec, text)]


PILED = "a" + "\u0301\u0316" * 30000


@pytest.mark.parametrize("text", ["\ufdfa" * 2**16, "a" * 2**16, " " * 30000 + "a" * 2**15, PILED])
def test_no_more_is_read_than_the_tokens_wanted_may_need(text: str):
    spent: list[int] = []
    Tokens(words(length=6)).read([text, "cat"], spent.append)
    assert 1000 < spent[0] <= 6 * 16 + 1024
    assert spent[1] == 3


def test_a_text_that_grows_is_cut_where_it_is_read_in_full():
    kept, characters = _beginning("ab\ufdfa" + "\ufdfa" * 9, 40)
    assert (kept, characters) == ("ab\ufdfa\ufdfa", 38)
    assert characters == len(unicodedata.normalize("NFKC", kept))


def test_what_it_costs_can_be_refused_before_it_is_read():
    class TooMuch(Exception):
        pass

    def refuse(units: int) -> None:
        raise TooMuch

    with pytest.raises(TooMuch):
        Tokens(words()).read(["cat"], refuse)
