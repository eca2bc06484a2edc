from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx

SECRETS = ("infer-key-0123456789", "wrong-key-0123456789", "in-a-query-0123456789", "in-the-body-0123456789")


def test_keys_and_bodies_are_nowhere_in_what_a_service_says(
    command: Any, numbers_checkpoint: Path, tmp_path: Path
) -> None:
    """Everything that is logged, counted or answered, at the most talkative level."""
    keys = tmp_path / "keys"
    keys.write_text(f"infer,metrics:{SECRETS[0]}\n")
    keys.chmod(0o644)
    arguments = (str(numbers_checkpoint), "--log-level", "debug", "--access-log", "--api-keys-file", str(keys))
    with command.started(*arguments) as service:
        said = ""
        with httpx.Client(base_url=service.url) as client:
            for key in SECRETS[:2]:
                for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
                    for body in ({"instances": [[1, 2, 3, 4, 5]]}, {"instances": SECRETS[3]}):
                        url = f"/v1/predict?key={SECRETS[2]}"
                        said += client.post(url, json=body, headers={**headers, "X-Request-Id": "r-1"}).text
                    said += client.get("/metrics", headers=headers).text
            said = said.replace(f"the string '{SECRETS[3]}'", "")  # a caller's own body may be shown to that caller
        assert service.finish(signal.SIGTERM) == 0
        said += service.log + service.output
        lines = [json.loads(line) for line in service.output.splitlines()]
    assert "chmod 600" in said
    for secret in SECRETS:
        assert secret not in said
    assert [line["status"] for line in lines] == [200, 422, 200] * 2 + [401, 401, 401] * 2
    assert {line["request_id"] for line in lines if line["path"] == "/v1/predict"} == {"r-1"}
    assert lines[0] | {"time": "", "duration_ms": 0} == {
        "time": "",
        "request_id": "r-1",
        "client": "127.0.0.1",
        "method": "POST",
        "route": "/v1/predict",
        "path": "/v1/predict",
        "status": 200,
        "duration_ms": 0,
        "model": "row",
        "version": "1",
        "rows": 1,
        "refused": None,
    }
    assert lines[1]["refused"] == "invalid_request"
