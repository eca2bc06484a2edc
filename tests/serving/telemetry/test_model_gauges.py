from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from dubio.models import Ensemble, Predictor, load
from dubio.serving.errors import NotReady
from dubio.serving.repository.registry import ServedModel
from dubio.serving.telemetry.model_gauges import PROMISE, READY, ModelGauges

ADMIN = "admin:key-of-an-administrator metrics:key-of-prometheus-0123"


def shown(gauges: ModelGauges) -> dict[str, dict[str, float]]:
    return {
        metric.name: {"/".join(sample.labels.values()): sample.value for sample in metric.samples}
        for metric in gauges.collect()
    }


def test_what_is_promised_is_what_the_model_was_calibrated_for(predictor: Predictor, second_checkpoint: Path) -> None:
    other = load(second_checkpoint, measure_seconds=0)
    models = [
        ServedModel("one", "1", predictor),
        ServedModel("both", "1", Ensemble.build([predictor, other])),
        ServedModel("plain", "1", predictor.calibrated(predictor.temperature, None, None)),
    ]
    promised = shown(ModelGauges(lambda: models, list, lambda model: None))[PROMISE.name]
    assert promised == {"one/1": 0.05, "both/1": 0.05}
    assert [model.predictor.describe()["calibration"]["alpha"] for model in models[:2]] == [0.05, 0.05]


def test_what_should_be_served_and_is_not_is_not_ready(predictor: Predictor) -> None:
    models = [ServedModel("goes", "1", predictor), ServedModel("hangs", "1", predictor)]
    wanted = [("goes", "1"), ("hangs", "1"), ("broken", "1"), ("new", "2")]

    def require_progress(model: ServedModel) -> None:
        if model.name == "hangs":
            raise NotReady("A batch takes too long.")

    ready = shown(ModelGauges(lambda: models, lambda: wanted, require_progress))[READY.name]
    assert ready == {"goes/1": 1, "hangs/1": 0, "broken/1": 0, "new/2": 0}


def test_they_follow_the_repository(serve: Callable, settings: Callable, checkpoint: Path, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / "served" / name / "1").mkdir(parents=True)
    shutil.copy(checkpoint, tmp_path / "served" / "good" / "1" / "model.ckpt")
    (tmp_path / "served" / "bad" / "1" / "model.ckpt").write_bytes(np.random.default_rng(0).bytes(1000))
    given = settings(model_repository=tmp_path / "served", model_control="explicit", api_keys=ADMIN)

    with serve(given) as base:

        def ask(verb: str, name: str) -> int:
            headers = {"Authorization": "Bearer key-of-an-administrator"}
            return httpx.post(f"{base}/v2/repository/models/{name}/{verb}", headers=headers, timeout=60).status_code

        def ready() -> dict[str, float]:
            scraped = httpx.get(f"{base}/metrics", headers={"Authorization": "Bearer key-of-prometheus-0123"}).text
            return {
                sample.labels["model"]: sample.value
                for family in text_string_to_metric_families(scraped)
                for sample in family.samples
                if sample.name == READY.name
            }

        assert ready() == {}
        assert (ask("load", "good"), ask("load", "bad")) == (200, 400)
        assert ready() == {"good": 1, "bad": 0}
        assert ask("unload", "good") == 200
        assert ready() == {"bad": 0}
