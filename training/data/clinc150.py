"""CLINC150: 22500 questions to an assistant about 150 intents, and 1200 that are about none of them."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from torch import Tensor

from dubio.models.inputs.text import Tokens
from dubio.training import options
from dubio.training.data.mnist import fetch
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import DataUnavailable, UnreadableData
from dubio.training.readers import tokenizer
from dubio.training.readers.tokenizer import Kind
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import SplitName, split

# SHA-256 of the file as its authors published it.
CHECKSUM = "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0"
SOURCE = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/data_full.json"
OUT_OF_SCOPE = "oos"


class CLINC150(TensorDataModule):
    """150 intents, from Larson and others, An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction,
    2019; licence CC BY 3.0.

    The official training and test questions are the train and test splits; the official validation questions are
    divided into the other three. The out-of-scope test questions are strangers to be flagged.

    Args:
        path: The file `data_full.json`; without it, an earlier download.
        download: Fetch the file (2 MB, checksum verified) when it is not found.
        validation: Questions of 3000 that choose the best checkpoint.
        select: Questions of 3000 that fit the temperature and rank the scores; the rest sets the flag's threshold.
        tokenizer: Whole words (`word`), or parts of words (`bpe`).
        tokens: Most tokens that the vocabulary may have.
        length: Tokens of an input; longer questions are cut.
        batch_size: Questions a batch.
        source: Address to download from.
    """

    title = "CLINC150"
    public = True

    def __init__(
        self,
        path: str | None = None,
        download: bool = False,
        validation: int = 600,
        select: int = 600,
        tokenizer: Kind = "word",
        tokens: int = 8000,
        length: int = 32,
        batch_size: int = 64,
        source: str = SOURCE,
        **settings: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **settings)
        self.path = None if path is None else Path(path).expanduser()
        self.download, self.source = download, source
        self.validation, self.select = validation, select
        self.kind, self.tokens, self.length = tokenizer, tokens, length

    def prepare_data(self) -> None:
        """Downloads the file if that is allowed and needed."""
        if self.download and not self.file.is_file():
            fetch(self.source, CHECKSUM, self.file.parent)

    @property
    def file(self) -> Path:
        """Where the questions are."""
        return self.path or Path(pooch.os_cache("dubio")) / "clinc150" / "data_full.json"

    def out_of_distribution(self) -> dict[str, Tensor]:
        texts = [text for text, _ in self._content["oos_test"]]
        assert self.input.tokenizer is not None
        return {"out-of-scope questions": torch.from_numpy(Tokens(self.input.tokenizer).read(texts))}

    def read(self) -> Dataset:
        """The intents, sorted, and the tokenizer that the training questions taught."""
        classes = tuple(sorted({label for _, label in self._content["train"]}))
        learned = self.tokenizer or tokenizer.learn(
            [text for text, _ in self._content["train"]], self.kind, self.tokens, True, self.length
        )
        train, pool, test = (self._examples(part, classes, Tokens(learned)) for part in ("train", "val", "test"))
        sizes: dict[SplitName, int] = {"validation": self.validation, "select": self.select}
        sizes["calibration"] = len(pool.labels) - self.validation - self.select
        parts = split(pool.labels, sizes, self.seed, classes)
        splits = {"train": train, **pool.divide(parts), "test": test}
        parts = {name: len(train.labels) + rows for name, rows in parts.items()}
        parts["train"] = np.arange(len(train.labels))
        parts["test"] = len(train.labels) + len(pool.labels) + np.arange(len(test.labels))
        return Dataset(splits, classes, tokenizer.describe(learned), parts)

    def settings(self) -> dict[str, Any]:
        own = {"validation": self.validation, "select": self.select}
        return {**super().settings(), **own, "tokenizer": self.kind, "tokens": self.tokens, "length": self.length}

    def _examples(self, part: str, classes: tuple[str, ...], tokens: Tokens) -> Examples:
        number = {name: index for index, name in enumerate(classes)}
        for _, label in self._content[part]:
            if label not in number:
                raise UnreadableData(f"{self.file}: {label!r} of `{part}` is not among the intents of `train`.")
        labels = np.array([number[label] for _, label in self._content[part]], dtype=np.int64)
        return Examples(tokens.read([text for text, _ in self._content[part]]), labels)

    @cached_property
    def _content(self) -> dict[str, list[tuple[str, str]]]:
        self.prepare_data()
        if not self.file.is_file():
            raise DataUnavailable(
                f"CLINC150 was not found at {self.file}. Either set {options.named('path')} to its file "
                "data_full.json, or set `--data.download true` (`download: true` in a configuration)."
            )
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            return {
                part: [(str(text), str(label)) for text, label in content[part]]
                for part in ("train", "val", "test", "oos_test")
            }
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnreadableData(
                f"{self.file}: expected pairs of question and intent under `train`, `val`, `test` and `oos_test`, but "
                f"{type(error).__name__}: {error}."
            ) from error
