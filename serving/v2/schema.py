"""What travels over `/v2`: the Open Inference Protocol and its extensions. No torch here.

Requests are read as these types, but for the numbers, and answers are tested against them; they describe the API.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SkipValidation

from dubio.serving.wire import schema as wire
from dubio.serving.wire.schema import Explain, Extensible, Incoming, RequestId, SampleCount, Wire

_DATATYPES = (
    "BOOL",
    "BYTES",
    "FP16",
    "FP32",
    "FP64",
    *(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)),
)


class Parameters(Extensible):
    """Base of the protocol's parameters, of which other servers and clients know more."""

    content_type: SkipValidation[str | None] = Field(
        default=None,
        description="Of an input of BYTES in JSON: `base64`, or `pd_json` for elements that are JSON themselves. "
        "Others are accepted for compatibility, and the datatype decides.",
    )

    @classmethod
    def explain_slip(cls, key: str) -> str | None:
        """As `Extensible`; where a tensor is to be found or put cannot be left alone either."""
        if key.startswith("shared_memory"):
            return "shared memory is not supported; send the tensor in the body."
        return super().explain_slip(key)


class InferParameters(Parameters):
    """How to predict."""

    samples: SampleCount = None
    explain: Explain = None
    resize: bool | None = Field(
        default=None,
        description="Whether an image file of another size may be brought to the model's, where the training images "
        "were, too, as it is if nothing is said; if not, it is refused.",
    )
    timeout: int | None = Field(
        default=None, ge=0, le=2**63 - 1, description="Microseconds after which the answer is of no use; 504 then."
    )
    binary_data_output: bool | None = Field(
        default=None, description="Whether outputs come in binary that do not say otherwise themselves."
    )
    priority: SkipValidation[int | None] = Field(
        default=None, description="Accepted for compatibility; all requests are equal."
    )


class InputParameters(Parameters):
    """How an input is sent."""

    binary_data_size: int | None = Field(
        default=None, ge=1, description="How many bytes behind the JSON are this tensor; instead of `data`."
    )


class RequestInput(Extensible):
    """The rows to predict, or one column of them: raw values, which the model normalises itself."""

    name: str = Field(description="As the model's metadata say: `input`, or the name of a table's column.")
    shape: list[int] = Field(
        json_schema_extra={"items": {"type": "integer", "minimum": 1}},
        min_length=1,
        max_length=16,
        description="Rows first, then the model's input shape, as whole numbers; [-1] or [-1, 1] of texts, of image "
        "files and of a table's columns.",
    )
    datatype: str = Field(
        json_schema_extra={"enum": [*_DATATYPES]},
        description="FP32 of numbers and pixels; others (FP16 in binary only, FP64, INT*, UINT*) are converted. BYTES "
        "of texts, and of PNG, JPEG and WebP files for a model that takes files (in JSON their base64). A column of a "
        "table has any of them, or BOOL. Models of tables and of texts also take the numbers that rows become, as one "
        "tensor `input`.",
    )
    parameters: InputParameters | None = Field(default=None, description="How the input is sent.")
    data: list[Any] | None = Field(
        default=None,
        description="Nested like the shape, or flat in row-major order; null is a column's value that is missing.",
    )


class OutputParameters(Parameters):
    """How an output is to come."""

    binary_data: bool | None = Field(default=None, description="Whether it comes behind the JSON instead of in it.")
    classification: int | None = Field(
        default=None,
        ge=0,
        description="How many of the largest classes to name as `value:index:label`, instead of the numbers.",
    )


class RequestOutput(Extensible):
    """An output that is asked for; what is not asked for is not computed."""

    name: str = Field(
        description="One of the model's outputs, or `ood_explanation`, which `parameters.explain` adds to the others: "
        "BYTES [-1], each the JSON of what `/v1` adds to `ood` if it is to explain."
    )
    parameters: OutputParameters | None = Field(default=None, description="How the output is to come.")


class InferRequest(Extensible):
    """Rows to predict and what to say about them."""

    id: RequestId = None
    parameters: InferParameters | None = Field(default=None, description="How to predict.")
    inputs: list[RequestInput] = Field(
        min_length=1,
        max_length=4096,
        fail_fast=True,
        description="One tensor, `input`; for a table one of each column: name, shape, datatype and data.",
    )
    outputs: list[RequestOutput] | None = Field(
        default=None,
        fail_fast=True,
        description="All, if none is named. Name those that you need: no others are computed and sent.",
    )


class ResponseOutput(Wire):
    """An output tensor."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = Field(default=None, description="`binary_data_size`, if it is not in `data`.")
    data: list[Any] | None = Field(default=None, description="Flat, in row-major order.")


class InferResponse(Wire):
    """The outputs, in the order in which they were asked for."""

    id: str | None = None
    model_name: str
    model_version: str
    parameters: dict[str, Any] | None = Field(
        default=None,
        description="`samples`: how many members answered, or `auto`. `ood_level`: flagged when `ood_p_value` is at or "
        "below it. `accepted_risk` and `accepted_confidence`: at most this share of accepted answers is wrong. "
        "`label_set_coverage`: at least this share of sets holds the true class. `ood_reason`, `accepted_reason` and "
        "`label_set_reason`: why there are no such outputs.",
    )
    outputs: list[ResponseOutput]


class Tensor(Wire):
    """What an input or output tensor is."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 stands for any number of rows.")


class ServerMetadata(Wire):
    """Who answers, and what it can do."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(Wire):
    """A model's tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ModelReady(Wire):
    """A model that may be asked."""

    name: str
    ready: bool


class ModelConfig(Wire):
    """A model's configuration, in the words of Triton's `ModelConfig`."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    dynamic_batching: dict[str, Any]
    parameters: dict[str, dict[str, str]]


class Duration(Wire):
    """How often something happened, and how many nanoseconds it took altogether."""

    count: int
    ns: int


class InferenceStatistics(Wire):
    """What happened to requests."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(Wire):
    """What batches of one size cost."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(Wire):
    """What one version of a model did since it was loaded."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 for never.")
    inference_count: int = Field(description="Rows.")
    execution_count: int = Field(description="Batches.")
    inference_stats: InferenceStatistics
    response_stats: dict[str, Any]
    batch_stats: list[BatchStatistics]
    memory_usage: list[dict[str, Any]]


class StatisticsReport(Wire):
    """What the models did."""

    model_stats: list[ModelStatistics]


class IndexRequest(Incoming):
    """Which models to list."""

    ready: bool | None = Field(default=None, description="Only those that are loaded.")


class IndexEntry(Wire):
    """How one version of a model stands."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not served, or not as its files are now; empty otherwise.")


class LoadParameters(Incoming):
    """Nothing: models are loaded as they lie on disk."""

    @classmethod
    def explain_unknown(cls, key: str) -> str:
        """What to do about a key: there is none that could be known."""
        return (
            "models are loaded from the service's own disk as they are; put the checkpoint there, and load the model "
            "without parameters."
        )


class LoadRequest(Incoming):
    """A model to load, which the path names."""

    parameters: LoadParameters | None = Field(default=None, description="None are known.")


class UnloadParameters(Incoming):
    """How to unload."""

    unload_dependents: bool | None = Field(
        default=None, description="Accepted for compatibility; no model depends on another."
    )


class UnloadRequest(Incoming):
    """A model to unload, which the path names."""

    parameters: UnloadParameters | None = Field(default=None, description="How to unload.")


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for errors of these statuses."""
    return wire.describe_errors({"model": wire.ForeignError}, *statuses)
