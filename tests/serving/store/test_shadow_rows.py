from __future__ import annotations

from dubio.serving.store.drawn import Drawn
from dubio.serving.store.shadow_rows import ShadowRows
from tests.serving.store.test_comparisons import PAIR


def test_only_the_rows_that_are_kept_anyway_are_taken() -> None:
    sampled = Drawn("r", [False, True, False, True], everything=False)
    assert sampled.rows == [1, 3]
    assert Drawn("r", [False, True, False], everything=True).rows == [0, 1, 2]
    rows = ShadowRows.of(PAIR, "r", sampled.rows, ["a", "b", "c", "d"], ["a", None, "c", "e"])
    assert len(rows) == 2
    assert rows.nbytes > 0
    written = list(rows.to_database("hash"))
    assert [(row["row_number"], row["live_label"], row["shadow_label"]) for row in written] == [
        (1, "b", None),
        (3, "d", "e"),
    ]
    assert {(row["request_id"], row["comparison"], row["true_label"]) for row in written} == {("r", PAIR.digest, None)}
    assert [row["id"][-8:] for row in written] == ["00000001", "00000003"]
    assert all(len(row["id"]) == 32 for row in written)
