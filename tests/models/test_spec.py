from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dubio.models.spec import (
    MAX_LIST,
    CommitteeSpec,
    Finite,
    Name,
    NetworkSpec,
    Provenance,
    Rate,
    Sha256,
    SiteSpec,
    StrictModel,
    Temperature,
    describe_validation_error,
    shortest,
)

SITE: dict[str, Any] = {"kind": "dropout", "p": 0.5, "shape": [4]}
COMMITTEE: dict[str, Any] = {"num_samples": 64, "seed": 0, "sites": [SITE], "fingerprint": "a" * 64}
PROVENANCE: dict[str, Any] = {
    "data": "digits",
    "data_sha256": "0" * 64,
    "weights_sha256": "1" * 64,
    "date": "2026-01-01T00:00:00+00:00",
    "versions": {"torch": "2.13.0"},
}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (SiteSpec, SITE),
        (CommitteeSpec, COMMITTEE),
        (Temperature, {"deterministic": 1.5, "mc": 0.5}),
        (Provenance, PROVENANCE),
        (NetworkSpec, {"class_path": "dubio.models.MLP", "init_args": {"widths": [4], "rates": [0.5]}}),
    ],
)
def test_each_part_survives_its_own_dump_is_frozen_and_knows_no_other_key(
    kind: type[BaseModel], values: dict[str, Any]
):
    part = kind.model_validate(values)
    assert kind.model_validate(part.model_dump()) == part
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, next(iter(values)), 0)
    with pytest.raises(ValidationError, match=r"(?s)extra.*not permitted"):
        kind.model_validate({**values, "extra": 1})


@pytest.mark.parametrize(
    ("kind", "values", "change", "message"),
    [
        (SiteSpec, SITE, {"p": 0.0}, "greater than 0"),
        (SiteSpec, SITE, {"p": 1.5}, "less than or equal to 1"),
        (SiteSpec, SITE, {"shape": [-1]}, "greater than or equal to 1"),
        (CommitteeSpec, COMMITTEE, {"num_samples": 1}, "greater than or equal to 2"),
        (CommitteeSpec, COMMITTEE, {"num_samples": 4097}, "less than or equal to 4096"),
        (CommitteeSpec, COMMITTEE, {"num_samples": True}, "valid integer"),
        (CommitteeSpec, COMMITTEE, {"seed": -1}, "greater than or equal to 0"),
        (CommitteeSpec, COMMITTEE, {"seed": 2**63}, "less than 9223372036854775808"),
        (CommitteeSpec, COMMITTEE, {"sites": []}, "at least 1 item"),
        (CommitteeSpec, COMMITTEE, {"fingerprint": "a" * 63}, "pattern"),
        (CommitteeSpec, COMMITTEE, {"fingerprint": "a" * 64 + "\n"}, "pattern"),
        (Temperature, {}, {"mc": 0.0}, "greater than 0"),
        (Temperature, {}, {"deterministic": math.inf}, "finite number"),
        (Provenance, PROVENANCE, {"data": ""}, "at least 1 character"),
        (Provenance, PROVENANCE, {"weights_sha256": "z" * 64}, "pattern"),
        (Provenance, PROVENANCE, {"versions": {"torch": 2}}, "valid string"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_rule(
    kind: type[BaseModel], values: dict[str, Any], change: dict[str, Any], message: str
):
    with pytest.raises(ValidationError, match=message):
        kind.model_validate({**values, **change})


@pytest.mark.parametrize(
    "class_path",
    [
        "",
        "MLP()",
        "os.system('x')",
        "dubio.models.MLP\n",
        "../models.MLP",
        "http://a.b/c.MLP",
        "dubio..MLP",
        "1a.b",
        "a" * 257,
    ],
)
def test_a_class_path_is_a_dotted_name(class_path: str):
    with pytest.raises(ValidationError, match="class_path"):
        NetworkSpec(class_path=class_path, init_args={})


@pytest.mark.parametrize(
    "argument",
    [
        3,
        0.5,
        True,
        None,
        "mean",
        "batch_norm",
        "pre-norm",
        "a" * 256,
        [512, 256],
        (0.5, 0.4),
        [[1, 2], [3, [4, [5]]]],
        [0] * MAX_LIST,
        {"num_hidden_layers": 2, "hidden_act": "gelu_new", "nested": {"sizes": [1, 2]}},
    ],
)
def test_plain_arguments_are_taken(argument: object):
    assert NetworkSpec(class_path="dubio.models.MLP", init_args={"a": argument}).init_args == {"a": argument}


@pytest.mark.parametrize(
    "argument",
    [
        {"class_path": "os.system", "init_args": {"command": "true"}},
        [{"class_path": "os.system"}],
        "https://example.org/net.yaml",
        "/etc/passwd",
        "../net.yaml",
        "net.yaml",
        "torch.nn.ReLU",
        "C:\\net",
        "~",
        "",
        "a b",
        "a" * 257,
        math.nan,
        [0.5, math.inf],
        b"bytes",
        {1, 2},
        1j,
        object(),
        [[[[[1]]]]],
        {"a": {"b": {"c": {"d": {"e": 1}}}}},
        {"a b": 1},
        {3: 1},
        {"": 1},
        {f"k{number}": 1 for number in range(MAX_LIST + 1)},
        [0] * (MAX_LIST + 1),
    ],
    ids=lambda argument: type(argument).__name__,
)
def test_what_is_not_plain_or_could_be_resolved_is_refused_by_name(argument: object):
    with pytest.raises(ValidationError, match=r"init_args\.a"):
        NetworkSpec(class_path="dubio.models.MLP", init_args={"a": argument})


@pytest.mark.parametrize("init_args", ["https://example.org/args.yaml", ["a"], None])
def test_arguments_are_a_dict(init_args: object):
    with pytest.raises(ValidationError, match="valid dictionary"):
        NetworkSpec.model_validate({"class_path": "dubio.models.MLP", "init_args": init_args})


def test_arguments_are_not_too_many():
    with pytest.raises(ValidationError, match=f"at most {MAX_LIST} arguments"):
        NetworkSpec(class_path="dubio.models.MLP", init_args={f"a{index}": 1 for index in range(MAX_LIST + 1)})


class Part(StrictModel):
    name: Name = "a"
    number: Finite = 0.0
    rate: Rate = 0.5
    digest: Sha256 = "0" * 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "at least 1 character"),
        ({"name": "a" * 257}, "at most 256 characters"),
        ({"name": 1}, "valid string"),
        ({"number": float("nan")}, "finite"),
        ({"number": "1"}, "valid number"),
        ({"number": True}, "valid number"),
        ({"rate": 0.0}, "greater than 0"),
        ({"rate": 1.1}, "less than or equal to 1"),
        ({"digest": "A" * 64}, "match pattern"),
        ({"other": 1}, "not permitted"),
    ],
)
def test_nothing_is_coerced_and_every_field_is_bounded(values: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Part.model_validate(values)


def test_the_longest_name_and_the_largest_rate_are_just_taken():
    assert Part(name="a" * 256, rate=1.0).name == "a" * 256
    assert len(NetworkSpec(class_path="a" * 256, init_args={f"a{index}": 1 for index in range(MAX_LIST)}).init_args)


@pytest.mark.parametrize(
    ("values", "prefix", "text"),
    [
        ({"name": ""}, "", "`name`: String should have at least 1 character"),
        ({"name": "", "rate": 2.0}, "dubio.part", "`dubio.part.name`: String should have at least 1 character"),
        ({"other": 1}, "dubio", "`dubio.other`: Extra inputs are not permitted"),
        (None, "dubio", "`dubio`: Input should be a valid dictionary or instance of Part"),
    ],
)
def test_a_validation_error_is_told_in_one_line_with_the_field_and_the_rule(values: object, prefix: str, text: str):
    with pytest.raises(ValidationError) as caught:
        Part.model_validate(values)
    assert describe_validation_error(caught.value, prefix) == text


def test_a_part_cannot_be_changed():
    part = Part(name="b", number=-1.5, rate=1.0, digest="f" * 64)
    with pytest.raises(ValidationError, match="frozen"):
        part.name = "c"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((value, value) for value in (44.45, 3.0, 0.0, 1e300, 2600000.25, 2199023517696.0)),
        *((44.45000076293945, 44.45), (-0.10000000149011612, -0.1)),
    ],
)
def test_a_value_of_the_data_is_shown_as_it_was_written(value: float, shown: float):
    assert shortest(value) == shown
