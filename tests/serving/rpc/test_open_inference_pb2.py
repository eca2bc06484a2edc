from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from dubio.serving.rpc import open_inference_pb2 as pb

ROOT = Path(__file__).parents[3]
SOURCE = Path("dubio/serving/rpc/open_inference.proto")
# The messages of which this service knows a part; what it does not is skipped when it is read.
COMPARE = """
import sys
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2, model_config_pb2
ours = descriptor_pb2.FileDescriptorProto.FromString(sys.stdin.buffer.read())
def walk(messages, prefix=""):
    for message in messages:
        yield prefix + message.name, message
        yield from walk(message.nested_type, f"{prefix}{message.name}.")
theirs = {}
for module in (service_pb2, model_config_pb2):
    file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    theirs.update(walk(file.message_type))
    enums = {each.name: {value.name: value.number for value in each.value} for each in file.enum_type}
last = lambda name: name.rpartition(".")[2]
for name, message in walk(ours.message_type):
    fields = {each.number: each for each in theirs[name].field}
    for field in message.field:
        if name.startswith("RepositoryModel") and name.endswith("Response"):
            continue  # of another dialect
        other = fields[field.number]
        assert (field.type, field.label, last(field.type_name)) == (other.type, other.label, last(other.type_name)), (
            name, field.name)
        if "is_" not in field.name:
            assert field.name == other.name, (name, field.name)
types = {value.name: value.number for each in ours.enum_type for value in each.value}
assert types.items() <= enums["DataType"].items()
print(len(types))
"""


def test_the_messages_are_what_protoc_makes_of_their_source(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    made = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"--proto_path={ROOT}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            str(ROOT / SOURCE),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    module = SOURCE.with_name("open_inference_pb2.py")
    stub = module.with_suffix(".pyi")
    assert (tmp_path / stub).read_text() == (ROOT / stub).read_text()
    code = "import runpy, sys; sys.stdout.buffer.write(runpy.run_path(sys.argv[1])['DESCRIPTOR'].serialized_pb)"
    again = subprocess.run([sys.executable, "-c", code, str(tmp_path / module)], capture_output=True, timeout=60)
    assert again.stdout == pb.DESCRIPTOR.serialized_pb


def test_fields_have_the_numbers_and_types_of_tritons_client() -> None:
    # In a process of its own: KServe's messages have the same names, and another test may have loaded them.
    outcome = subprocess.run(
        [sys.executable, "-c", COMPARE], input=pb.DESCRIPTOR.serialized_pb, capture_output=True, timeout=60
    )
    assert outcome.returncode == 0, outcome.stderr.decode()
    assert outcome.stdout == b"14\n"


def test_no_name_is_one_of_a_clients() -> None:
    file = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    assert file.package == "dubio.inference"
    assert not file.service
