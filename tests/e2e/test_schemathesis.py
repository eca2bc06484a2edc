"""Requests drawn from the service's own OpenAPI description, right ones and wrong ones: none is a server error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis import APIOperation, Case, GenerationMode

from tests.serving.conftest import Command

pytestmark = pytest.mark.slow

KEY = "end-to-end-key-0123456789"
EXAMPLES = 60
KNOWN = {"name": "row", "version": "1"}


@pytest.fixture(scope="module")
def service(numbers_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, where every route is open to the key."""
    root = tmp_path_factory.mktemp("repository")
    arguments = (str(numbers_checkpoint), "--model-repository", str(root))
    with Command().started(*arguments, DUBIO_API_KEYS=f"infer,admin,metrics:{KEY}") as running:
        yield running.url
        assert "Traceback" not in running.log


def cases(operation: APIOperation) -> strategies.SearchStrategy[Case]:
    """Right and wrong requests."""
    return operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE)


def ask(operation: APIOperation, url: str, session: requests.Session) -> set[int]:
    """Send requests drawn for one operation; the statuses that came back."""
    statuses = set()

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases(operation), known=strategies.booleans())
    def send(case: Case, known: bool) -> None:
        # Not the drawn ones, with which nobody gets in.
        for header in ("X-API-Key", "Authorization"):
            case.headers.pop(header, None)
        if known and not operation.path.endswith("/unload"):  # the model is needed further
            case.path_parameters.update({name: KNOWN[name] for name in case.path_parameters if name in KNOWN})
        answer = case.call(base_url=url, session=session)
        statuses.add(answer.status_code)
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.status_code} {answer.text[:500]}"

    send()
    return statuses


def test_no_request_is_a_server_error(service: str) -> None:
    with requests.Session() as session:
        session.headers["X-API-Key"] = KEY
        document = session.get(f"{service}/openapi.json").json()
        operations = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
        assert len(operations) == sum(len(methods) for methods in document["paths"].values())
        statuses = {operation.label: ask(operation, service, session) for operation in operations}
        good = {"instances": [[1, 2, 3, 4, 5]]}
        assert session.post(f"{service}/v1/predict", json=good).status_code == 200
    # Requests came further than to the door: where a body is wanted, some were refused for what was in it.
    assert statuses["POST /v1/models/{name}/predict"] & {400, 422}
    assert statuses["POST /v2/models/{name}/infer"] & {400, 422}
