"""What the service is told of a model: the model's own words, as data that another process can be given."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

from dubio import models
from dubio.models import Ensemble, Predictor
from dubio.serving.compute.model_facts import FlagPromise, ModelFacts, fingerprint


def test_the_facts_are_what_the_model_says_and_survive_pickling(predictor: Predictor) -> None:
    facts = ModelFacts.of(predictor)
    assert facts.card == predictor.describe()
    assert facts.promise == FlagPromise(0.05, 0.05, 300)
    assert (facts.classes, facts.num_samples) == (predictor.classes, predictor.committee.num_samples)
    assert (facts.no_promise, facts.asks_adaptively) == (None, True)
    told = pickle.loads(pickle.dumps(facts))
    assert vars(told) == vars(facts)


def test_an_ensemble_promises_jointly_and_an_uncalibrated_model_says_why_it_does_not(
    predictor: Predictor, second_checkpoint: Path
) -> None:
    ensemble = Ensemble.build([predictor, models.load(second_checkpoint)])
    facts = ModelFacts.of(ensemble)
    assert facts.promise == FlagPromise(0.05, 0.05, None)
    assert facts.num_samples == 2 * predictor.committee.num_samples
    bare = ModelFacts.of(replace(predictor, detector=None))
    assert (bare.promise, bare.no_promise) == (None, "not_calibrated")


def test_the_fingerprint_changes_with_whatever_labels_and_flags_depend_on(
    predictor: Predictor, checkpoint: Path, second_checkpoint: Path
) -> None:
    other = models.load(second_checkpoint)
    known = [
        predictor,
        other,
        replace(predictor, stopping=None),
        replace(predictor, detector=None),
        Ensemble.build([predictor, other]),
        Ensemble.build([other, predictor]),
    ]
    assert len({fingerprint(each) for each in known}) == len(known)
    assert fingerprint(models.load(checkpoint)) == fingerprint(predictor)
