"""Answers whose true class is known, as tests want them."""

from __future__ import annotations

import numpy as np
import torch

from dubio.uncertainty.detection.answers import Answers, LabelledAnswers


def labelled(confidence: np.ndarray, wrong: np.ndarray, score: np.ndarray, rounding: float = 0.0) -> LabelledAnswers:
    """Answers of two classes and a third that is always improbable; class 0 is the answer."""
    rest = (1 - confidence)[:, None]
    probs = torch.from_numpy(np.concatenate([confidence[:, None], 0.9 * rest, 0.1 * rest], axis=1))
    labels_N = torch.from_numpy(wrong.astype(np.int64))
    answers = Answers(torch.zeros(len(confidence), dtype=torch.int64), probs, probs)
    score_N = torch.from_numpy(score.astype(np.float64))
    return LabelledAnswers(answers, labels_N, score_N, score_N, torch.ones(len(score), dtype=torch.bool), rounding)
