from __future__ import annotations

from dubio.serving.store import quality
from dubio.serving.v1.feedback_schema import VersionQuality


def test_descriptions_tell_the_numbers_that_are_used() -> None:
    described = {name: str(field.description) for name, field in VersionQuality.model_fields.items()}
    assert str(quality.MOST_ROWS) in described["rows"]
    assert f"{quality.BINS} bins" in described["calibration_error"]
