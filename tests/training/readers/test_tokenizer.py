from __future__ import annotations

import pytest

from dubio.models.inputs.text import SPECIAL, Tokens
from dubio.training.errors import TrainingError
from dubio.training.readers import tokenizer

TEXTS = ["book a flight", "book a table", "Book a Flight to Bern!", "what is a table"]


def test_words_are_counted_and_the_most_frequent_come_first():
    spec = tokenizer.learn(TEXTS)
    assert spec.vocabulary[:4] == [*SPECIAL, "a", "book"]
    assert set(spec.vocabulary[4:]) == {"flight", "table", "to", "bern", "!", "what", "is"}
    assert spec.merges == []
    assert "Book" in tokenizer.learn(TEXTS, lowercase=False).vocabulary


def test_the_vocabulary_has_a_size_and_what_is_beyond_it_is_unknown():
    spec = tokenizer.learn(TEXTS, size=4, length=4)
    assert spec.vocabulary == [*SPECIAL, "a", "book"]
    assert Tokens(spec).read(["book a flight"]).tolist() == [[3, 2, 1, 0]]


def test_parts_of_words_spell_words_that_were_never_seen():
    spec = tokenizer.learn(["lower lowest newer newest"] * 3, kind="bpe", size=40, length=12)
    assert spec.merges
    reader = Tokens(spec)
    parts = [spec.vocabulary[int(token)] for token in reader.read(["slower"])[0] if token]
    assert "".join(parts) == "slower"
    assert SPECIAL[1] not in parts
    assert len(reader.read(["newest"])[0].nonzero()[0]) < len("newest")


def test_the_same_texts_teach_the_same():
    for kind in ("word", "bpe"):
        assert tokenizer.learn(TEXTS, kind=kind) == tokenizer.learn(TEXTS, kind=kind)


def test_the_input_is_as_long_as_the_tokenizer_makes_it():
    described = tokenizer.describe(tokenizer.learn(TEXTS, length=7))
    assert (described.kind, described.shape, described.high) == ("text", (7,), 10.0)
    assert described.reader.read(["to Bern"]).shape == (1, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 2}, "tokens` to be from 3"),
        ({"size": 10**6}, "to 65536"),
        ({"length": 0}, "length` to be from 1 to 4096"),
    ],
)
def test_a_number_out_of_bounds_is_told(settings: dict[str, int], message: str):
    with pytest.raises(TrainingError, match=message):
        tokenizer.learn(TEXTS, **settings)


def test_texts_without_words_teach_nothing():
    with pytest.raises(TrainingError, match="words in the training texts"):
        tokenizer.learn([" "])
