"""What travels over `/v2`: the Open Inference Protocol and its extensions. No torch here.

As over `/v1`, bodies are parsed and written by hand; these types say which keys are known, and describe the API.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dubio.serving.v1.schema import Wire


class InferParameters(Wire):
    """How to predict."""

    samples: Annotated[int, Field(ge=2)] | Literal["auto"] | None = Field(
        default=None,
        description="How many committee members to ask, from 2 to the committee's size (the default). "
        "Flags are calibrated for the whole committee, and for `auto`: as many members as each row takes until "
        "neither its label nor its flag is likely to change; the output `mc_samples` says how many that were.",
    )
    timeout: int | None = Field(
        default=None, ge=0, le=2**63 - 1, description="Microseconds after which the answer is of no use; 504 then."
    )
    binary_data_output: bool | None = Field(
        default=None, description="Whether outputs come in binary that do not say otherwise themselves."
    )
    priority: int | None = Field(default=None, description="Accepted for compatibility; all requests are equal.")
    content_type: str | None = Field(default=None, description="Accepted for compatibility; the datatype decides.")


class InputParameters(Wire):
    """How an input is sent."""

    binary_data_size: int | None = Field(
        default=None, ge=1, description="How many bytes behind the JSON are this tensor; instead of `data`."
    )
    content_type: str | None = Field(default=None, description="Accepted for compatibility; the datatype decides.")


class RequestInput(Wire):
    """The rows to predict: raw values, which the model normalises itself."""

    name: str = Field(description="`input`, the only one.")
    shape: list[int] = Field(description="Rows first, then the model's input shape.")
    datatype: str = Field(description="FP32; other numbers (FP16 in binary only, FP64, INT*, UINT*) are converted.")
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(default=None, description="Nested like the shape, or flat in row-major order.")


class OutputParameters(Wire):
    """How an output is to come."""

    binary_data: bool | None = Field(default=None, description="Behind the JSON instead of in it.")
    classification: int | None = Field(
        default=None, ge=0, description="So many largest classes as `value:index:label`, instead of the numbers."
    )
    content_type: str | None = Field(default=None, description="Accepted for compatibility; the datatype decides.")


class RequestOutput(Wire):
    """An output that is asked for; what is not asked for is not computed."""

    name: str
    parameters: OutputParameters | None = None


class InferRequest(Wire):
    """Rows to predict and what to say about them."""

    id: str | None = Field(default=None, max_length=256, description="Echoed in the answer.")
    parameters: InferParameters | None = None
    inputs: list[RequestInput] = Field(min_length=1, max_length=1)
    outputs: list[RequestOutput] | None = Field(default=None, description="All but `mc_samples`, if none is named.")


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
        "below it. `ood_reason`: why there are no `ood_*` outputs.",
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


class IndexRequest(Wire):
    """Which models to list."""

    ready: bool = Field(default=False, description="Only those that are loaded.")


class IndexEntry(Wire):
    """How one version of a model stands."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not served, or not as its files are now; empty otherwise.")


class LoadRequest(Wire):
    """Nothing: models are loaded as they lie on disk."""

    parameters: dict[str, Any] | None = Field(
        default=None, description="Empty. `config` and `file:` overrides are refused.", max_length=0
    )


class UnloadParameters(Wire):
    """How to unload."""

    unload_dependents: bool | None = Field(
        default=None, description="Accepted for compatibility; no model depends on another."
    )


class UnloadRequest(Wire):
    """Nothing that matters."""

    parameters: UnloadParameters | None = None
