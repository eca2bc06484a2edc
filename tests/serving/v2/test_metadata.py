from __future__ import annotations

from dataclasses import replace

from dubio.models import Predictor
from dubio.serving.repository.repository import ServedModel
from dubio.serving.v2 import schema
from dubio.serving.v2.metadata import configure, describe_model, describe_server
from dubio.serving.v2.outputs import OUTPUTS
from dubio.uncertainty.detection.selective import TOO_MANY_ERRORS


def test_documents_have_the_protocols_form(predictor: Predictor) -> None:
    model = ServedModel("m", "1", predictor)
    schema.ServerMetadata.model_validate(describe_server("1.2", loads_on_request=True), strict=True)
    about = schema.ModelMetadata.model_validate(describe_model(model, ["1", "2"]), strict=True)
    assert about.versions == ["1", "2"]
    assert [output.name for output in about.outputs] == list(OUTPUTS)
    config = schema.ModelConfig.model_validate(configure(model, max_rows=7), strict=True)
    assert config.max_batch_size == 7
    # Without the batch axis, as clients read a configuration that batches.
    assert [output["dims"] for output in config.output][:2] == [[1], [4]]


def test_without_calibration_no_flag_is_promised(predictor: Predictor) -> None:
    model = ServedModel("m", "1", replace(predictor, detector=None))
    for outputs in (describe_model(model, ["1"])["outputs"], configure(model, max_rows=7)["output"]):
        assert [output["name"] for output in outputs] == [*[*OUTPUTS][:-4], "label_set"]


def test_what_was_not_promised_is_no_output(predictor: Predictor) -> None:
    refused = tuple(replace(each, refusal=TOO_MANY_ERRORS) for each in predictor.promises.acceptances)
    unsure = replace(predictor, promises=replace(predictor.promises, acceptances=refused))
    bare = replace(predictor, promises=None, auto_promises=None)
    for each, absent in ((unsure, {"accepted"}), (bare, {"accepted", "label_set"})):
        told = [output["name"] for output in describe_model(ServedModel("m", "1", each), ["1"])["outputs"]]
        assert told == [name for name in OUTPUTS if name not in absent]
