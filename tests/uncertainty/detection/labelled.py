"""Answers whose true class is known, as tests want them."""

from __future__ import annotations

import numpy as np
import torch

from dubio.uncertainty.detection.answers import Answers, LabelledAnswers
from dubio.uncertainty.detection.selective import Acceptance


def labelled(confidence: np.ndarray, wrong: np.ndarray, score: np.ndarray, rounding: float = 0.0) -> LabelledAnswers:
    """Answers of two classes and a third that is always improbable; class 0 is the answer."""
    rest = (1 - confidence)[:, None]
    probs = torch.from_numpy(np.concatenate([confidence[:, None], 0.9 * rest, 0.1 * rest], axis=1))
    labels_N = torch.from_numpy(wrong.astype(np.int64))
    answers = Answers(torch.zeros(len(confidence), dtype=torch.int64), probs, probs)
    score_N = torch.from_numpy(score.astype(np.float64))
    return LabelledAnswers(answers, labels_N, score_N, score_N, torch.ones(len(score), dtype=torch.bool), rounding)


class World:
    """Finitely many kinds of inputs, so that every true rate is a sum: a confidence, a score and a risk a kind.

    Args:
        kinds: How many; few of them tie heavily.
        hard: The mean risk of an answer.
        related: Whether kinds of high scores err more often.
    """

    def __init__(self, kinds: int, hard: float, related: bool = True, seed: int = 0) -> None:
        chance = np.random.default_rng(seed)
        self.share = chance.dirichlet(np.full(kinds, 2.0))
        self.confidence = np.sort(chance.uniform(0.4, 1, kinds))
        odds = (1 - self.confidence) ** 1.5 * chance.uniform(0.5, 1.5, kinds)
        self.risk = np.clip(odds * hard / (odds @ self.share), 0, 0.9)
        noise = chance.normal(size=kinds)
        self.score = (1 - self.confidence) * 3 * related + noise * 0.5

    def draw(self, chance: np.random.Generator, rows: int) -> LabelledAnswers:
        kind = chance.choice(len(self.share), rows, p=self.share)
        wrong = chance.random(rows) < self.risk[kind]
        return labelled(self.confidence[kind], wrong, self.score[kind])

    def true_risk(self, rule: Acceptance) -> tuple[float, float]:
        """Of the accepted answers, and the share of them."""
        rows = labelled(self.confidence, np.zeros(len(self.share), dtype=bool), self.score)
        accepted = rule.accepts(rows.answers, rows.high_N).numpy()
        share = self.share[accepted].sum()
        return (float(self.share[accepted] @ self.risk[accepted] / share) if share else 0.0), float(share)
