"""Answers, against the predictor's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dubio.models import Temperature
from dubio.training.errors import TrainingError
from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.report.answers import ask, fitted
from tests.training.report.conftest import Written


def test_they_are_those_of_the_predictor_in_any_batches(written: Written):
    x, _ = written.data.raw("test")
    predictor, x = written.predictor, x[:40]
    answers = ask(predictor, x, lambda rows: iter(rows.split(16)))
    due = predictor.predict(x)
    np.testing.assert_allclose(answers.probs[DETERMINISTIC], due.probabilities, atol=1e-6)
    np.testing.assert_allclose(answers.probs[MC], due.mc_mean, atol=1e-5)
    np.testing.assert_allclose(answers.summary.std_BC, due.mc_std, atol=1e-5)
    np.testing.assert_allclose(answers.summary.predictive_entropy_B, due.predictive_entropy, atol=1e-4)
    assert (np.abs(answers.p_value_B.numpy() - due.p_value) <= 1.01 / 216).all()  # one calibration row, by rounding
    plain = replace(predictor, temperature=Temperature()).predict(x)
    np.testing.assert_allclose(answers.before[DETERMINISTIC], plain.probabilities, atol=1e-6)
    np.testing.assert_allclose(answers.before[MC], plain.mc_mean, atol=1e-5)


def test_the_answer_settles_as_the_first_members_say(written: Written):
    x, _ = written.data.raw("test")
    answers = ask(written.predictor, x[:20], lambda rows: iter(rows.split(7)))
    probs_KBC = written.predictor.outputs(x[:20]).probs_KBC
    settling = answers.settling
    assert settling.members == (2, 4, 8, 16, 32, 64)
    for members, mean_B, std_B in zip(settling.members, settling.mean_kB, settling.std_kB, strict=True):
        few = probs_KBC[:members]
        torch.testing.assert_close(mean_B, (few.mean(0) - probs_KBC.mean(0)).abs().amax(-1), rtol=0, atol=1e-5)
        due_B = (few.std(0, correction=0) - probs_KBC.std(0, correction=0)).abs().amax(-1)
        torch.testing.assert_close(std_B, due_B, rtol=0, atol=1e-4)
    assert float(settling.mean_kB[-1].max()) == float(settling.std_kB[-1].max()) == 0


def test_without_a_calibration_there_is_nothing_to_ask(written: Written):
    with pytest.raises(TrainingError, match="calibrated predictor"):
        fitted(replace(written.predictor, detector=None))
