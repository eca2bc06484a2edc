from __future__ import annotations

import csv
import json
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dubio.models import NetworkSpec, TextCNN, load, save
from dubio.training import CalibrationSettings, Text, calibrate
from dubio.training.errors import DataUnavailable, InvalidSplit, TrainingError, UnreadableData
from dubio.training.score_choice import DEFAULT_SCORES
from dubio.training.splits.random_splits import SPLITS
from tests.quick import quick_committee

# The texts have a number each, which no other has.
pytestmark = pytest.mark.filterwarnings("ignore:.*of the tokens outside the training rows are unknown")

TOPICS = {"food": ["bread", "soup", "rice"], "weather": ["rain", "snow", "fog"]}
ROWS = [
    {"text": f"Tell me number {number}, of {words[number % 3]}", "label": label}
    for number in range(150)
    for label, words in TOPICS.items()
]


def lines(folder: Path, rows: list[object] = ROWS, name: str = "mine.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def with_line(folder: Path, line: object, at: int = 5) -> str:
    return lines(folder, [*ROWS[: at - 1], line, *ROWS[at - 1 :]])


def test_rows_keep_their_labels_and_only_training_texts_teach_words(tmp_path: Path):
    data = Text(lines(tmp_path))
    tokenizer = data.input.tokenizer
    assert tokenizer is not None
    assert data.classes == ("food", "weather")
    seen = 0
    taught: set[str] = set()
    for name in data.splits:
        x, labels = data.raw(name)
        seen += len(x)
        for tokens, label in zip(x.tolist(), labels.tolist(), strict=True):
            words = {tokenizer.vocabulary[int(token)] for token in tokens}
            assert words & set(TOPICS[data.classes[label]])
            taught |= words if name == "train" else set()
    assert seen == len(ROWS)
    assert set(tokenizer.vocabulary) <= taught | {"[UNK]"}
    assert (data.input.kind, data.input.shape, data.input.low) == ("text", (32,), 0)
    assert data.input.high == len(tokenizer.vocabulary) - 1


@pytest.mark.parametrize(
    ("name", "delimiter"), [("mine.csv", ","), ("MINE.CSV", ","), ("mine.tsv", "\t"), ("M.TSV", "\t")]
)
def test_a_table_of_texts_says_the_same_as_json_lines(tmp_path: Path, name: str, delimiter: str):
    path = tmp_path / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["label", "text"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
        file.write("\n\n")  # blank lines at the end say nothing
    table, plain = Text(str(path)), Text(lines(tmp_path))
    assert table.input == plain.input
    for name in plain.splits:
        assert torch.equal(table.raw(name)[0], plain.raw(name)[0])
        assert torch.equal(table.raw(name)[1], plain.raw(name)[1])


def test_what_is_cut_and_what_is_unknown_is_said(tmp_path: Path):
    parts = [SPLITS[index // 2 % 5] for index in range(len(ROWS))]
    rows = [{**row, "text": row["label"], "part": part} for row, part in zip(ROWS, parts, strict=True)]
    path = lines(tmp_path, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _ = Text(path, split="part").splits
    for row in rows[:20]:
        row["text"] += " and more"  # two splits of ten rows each train
    last = next(row for row in rows if row["part"] == "test")
    last["text"] = "zzz yyy"
    with pytest.warns(UserWarning, match="are cut") as caught:
        _ = Text(lines(tmp_path, rows), split="part", length=2).splits
    # 19 texts of three tokens; outside the training rows 16 of them have two left and 224 one, 2 of the tokens unknown.
    said = str(caught[0].message)
    assert "19 of 300 texts have more than 2 tokens and are cut; raise `data.init_args.length`" in said
    assert f"{2 / (15 * 2 + 2 + 224):.1%} of the tokens outside the training rows are unknown." in said


def test_chinese_is_divided_into_characters(tmp_path: Path):
    asks, topics = (
        ["\u6211\u559c\u6b22{}", "\u8bf7\u544a\u8bc9\u6211{}"],
        {"weather": "\u5929\u6c14", "music": "\u97f3\u4e50"},
    )
    rows = [
        {"text": ask.format(word) + mark, "label": label}
        for label, word in topics.items()
        for ask in asks
        for mark in "\u3002\uff01\uff1f" * 20
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is unknown
        data = Text(lines(tmp_path, rows))
        _ = data.splits
    read = data.input.reader.read(["\u5929\u6c14 \u97f3\u4e50"])
    assert [data.input.tokenizer.vocabulary[int(token)] for token in read[0, :5]] == [
        *"\u5929\u6c14\u97f3\u4e50",
        "[PAD]",
    ]


def test_rows_may_say_their_split_themselves(tmp_path: Path):
    names = ["train", "validation", "select", "calibration", "test"]
    rows = [{**row, "part": names[index // 2 % 5]} for index, row in enumerate(ROWS)]
    data = Text(lines(tmp_path, rows), split="part")
    assert {name: len(data.raw(name)[0]) for name in names} == dict.fromkeys(names, 60)
    with pytest.raises(InvalidSplit, match="'dev'"):
        _ = Text(lines(tmp_path, [{**rows[0], "part": "dev"}, *rows[1:]]), split="part").splits


def test_an_author_is_on_one_side_and_later_texts_are_held_out(tmp_path: Path):
    # The text is its author's and its day's name, which the tokens then tell.
    random = np.random.default_rng(0)
    authors, days = random.integers(0, 50, 300), random.permutation(300)
    rows = [
        {"text": f"{'ab'[index % 2]} t{author}", "label": "ab"[index % 2], "author": int(author)}
        for index, author in enumerate(authors)
    ]
    data = Text(lines(tmp_path, rows), group="author")
    known = {tuple(each) for each in data.raw("train")[0].tolist()}
    taught = {word for word in data.input.tokenizer.vocabulary if word.startswith("t")}
    assert len(taught) < len({f"t{author}" for author in authors})  # of other authors no word is known
    for name in ("validation", "select", "calibration", "test"):
        assert not known & {tuple(each) for each in data.raw(name)[0].tolist()}
    rows = [{"text": "ab"[index % 2], "label": "ab"[index % 2], "day": day / 2} for index, day in enumerate(days)]
    rows = [{**row, "text": f"{row['text']} {' x' * min(int(2 * row['day']) // 30, 9)}"} for row in rows]
    data = Text(lines(tmp_path, rows, "days.jsonl"), time="day")
    ages = [(data.raw(name)[0] != 0).sum(1) for name in data.splits]
    assert ages[0].min() < ages[-1].min()
    assert all(one.max() <= other.min() for one, other in pairwise(ages))
    with pytest.raises(UnreadableData, match=r"line 5, column 'day' to be a time .* but got 'soon'"):
        _ = Text(lines(tmp_path, [*rows[:4], {**rows[4], "day": "soon"}, *rows[5:]], "soon.jsonl"), time="day").splits


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "soup"', "line 5 is no JSON"),
        ("[" * 100_000, "line 5 is no JSON"),
        ('["soup", "food"]', "expected line 5 to be an object"),
        ({"txt": "soup", "label": "food"}, "expected `text` in line 5, but it is absent; did you mean `txt`"),
        ({"text": "soup"}, "expected `label` in line 5"),
        ({"text": 7, "label": "food"}, "`text` in line 5 to be a text with words, but got 7"),
        ({"text": None, "label": "food"}, "but got None"),
        ({"text": "  ", "label": "food"}, "`text` in line 5 to be a text with words"),
        ({"text": "soup", "label": 1.5}, r"`label` in line 5 .* but got 1\.5\. Dubio classifies"),
        ({"text": "soup", "label": True}, "`label` in line 5"),
        ('{"text": "soup", "label": "food", "text": "rain"}', "every key of line 5 once, but got 'text' twice"),
        ({"text": "soup", "label": "Food "}, "line 1 has the class 'food' and line 5 has 'Food '"),
        ({"text": "soup", "label": "food", "Label": "x"}, "line 5 has the key 'label' and line 5 has 'Label'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, message: str):
    with pytest.raises(UnreadableData, match=message):
        _ = Text(with_line(tmp_path, line)).splits


def test_labels_outside_the_given_classes_and_missing_rows_are_refused(tmp_path: Path):
    with pytest.raises(UnreadableData, match="`label` to be one of 'food', 'sport', but row 1 has weather"):
        _ = Text(lines(tmp_path), classes=("food", "sport")).splits
    with pytest.raises(UnreadableData, match="expected rows, but it has none"):
        _ = Text(lines(tmp_path, [])).splits
    with pytest.raises(DataUnavailable, match="no such file"):
        _ = Text(str(tmp_path / "none.jsonl")).splits
    (tmp_path / "short.csv").write_text("text,label\nsoup,food\nrain\n")
    with pytest.raises(UnreadableData, match="line 3"):
        _ = Text(str(tmp_path / "short.csv")).splits
    (tmp_path / "twice.csv").write_text("text,label,text\nsoup,food,rain\n")
    with pytest.raises(UnreadableData, match="2 are called 'text'"):
        _ = Text(str(tmp_path / "twice.csv")).splits
    (tmp_path / "mine.txt").write_text("soup\n")
    with pytest.raises(UnreadableData, match=r"expected a .csv, .tsv or .jsonl file"):
        _ = Text(str(tmp_path / "mine.txt")).splits
    (tmp_path / "latin.csv").write_bytes(b"text,label\ncaf\xe9,food\n")
    with pytest.raises(UnreadableData, match="UTF-8"):
        _ = Text(str(tmp_path / "latin.csv")).splits


@pytest.mark.parametrize("option", [{"tokens": 2}, {"tokens": 2**17}, {"length": 0}, {"length": 5000}])
def test_options_out_of_bounds_are_refused_by_name(tmp_path: Path, option: dict[str, int]):
    with pytest.raises(TrainingError, match=f"`data.init_args.{next(iter(option))}`"):
        _ = Text(lines(tmp_path), **option).splits


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_from_the_file_a_sentence_is_answered_as_its_tokens_are(tmp_path: Path, kind: str):
    data = Text(lines(tmp_path), tokenizer=kind, tokens=120, validation=0.05, select=0.15, calibration=0.25, train=0.43)
    size = len(data.input.tokenizer.vocabulary)  # type: ignore[union-attr]
    arguments = {"vocabulary": size, "features": 8, "width": 8, "padding": 0, "num_classes": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TextCNN(**arguments).eval().requires_grad_(False)
    spec = NetworkSpec(class_path="dubio.models.TextCNN", init_args=arguments)
    predictor = calibrate(network, spec, data, CalibrationSettings(num_samples=8))
    assert predictor.detector is not None
    assert tuple(score.name for score in predictor.detector.scores) == DEFAULT_SCORES["text"]
    save(predictor, None, tmp_path / "model.ckpt")
    again = load(tmp_path / "model.ckpt")
    assert again.input == data.input
    sentences = ["tell me of soup", "SNOW and fog", "nothing of the kind"]
    ids = again.input.reader.read(sentences)  # type: ignore[union-attr]
    said, counted, before = again.predict(sentences), again.predict(ids), predictor.predict(ids)
    for answer in (counted, before):
        np.testing.assert_allclose(said.probabilities, answer.probabilities, atol=1e-6)
        np.testing.assert_allclose(said.mc_mean, answer.mc_mean, atol=1e-6)
    assert (said.flagged == counted.flagged).all()


def test_the_committee_samples_every_site_and_all_its_ways_agree_with_the_loop():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TextCNN(vocabulary=9, features=6, width=5, padding=0, num_classes=3).eval().requires_grad_(False)
    x = torch.randint(1, 9, (4, 7), generator=torch.Generator().manual_seed(1))
    loop = quick_committee(network, x[:1], num_samples=16, strategy="loop")
    assert [site.p for site in loop.sites] == [0.1, 0.3, 0.5]
    members_KBC = loop(x)
    assert (members_KBC.std(0) > 0).all()
    for strategy in ("fold", "vmap", "traced"):
        other = quick_committee(network, x[:1], num_samples=16, strategy=strategy)
        torch.testing.assert_close(other(x), members_KBC, rtol=1e-4, atol=1e-5)
