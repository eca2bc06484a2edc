from __future__ import annotations

import pytest

from dubio.training.data.rank_batches import RankBatches
from dubio.training.errors import TrainingError
from dubio.training.splits.shares import Share


def epoch(rows: int, count: int, batch_size: int, number: int = 0, seed: int | None = 0) -> list[list[list[int]]]:
    """The batches of each process, as numbers among all rows."""
    found = []
    for rank in range(count):
        batches = RankBatches(rows, Share(rank, count), batch_size, seed)
        batches.set_epoch(number)
        assert len(batches) == len(list(batches))
        found.append([[rank + count * own for own in batch] for batch in batches])
    return found


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_every_row_is_seen_once_an_epoch_and_all_take_as_many_steps(count: int, batch_size: int):
    for rows in range(2 * count, 70):
        processes = epoch(rows, count, batch_size)
        assert sorted(row for batches in processes for batch in batches for row in batch) == list(range(rows))
        assert len({len(batches) for batches in processes}) == 1
        sizes = [len(batch) for batches in processes for batch in batches]
        assert max(sizes) - min(sizes) <= 2
        assert min(sizes) >= 2  # BatchNorm cannot train on one row
        assert max(sizes) <= max(batch_size, 4)


def test_a_batch_has_the_size_that_was_asked_for_where_the_rows_allow_it():
    assert {len(batch) for batches in epoch(1000, 2, 50) for batch in batches} == {50}


def test_the_order_differs_by_epoch_process_and_seed_and_is_the_same_again():
    def orders(number: int, seed: int) -> list[tuple[int, ...]]:
        return [
            tuple(row // 2 for batch in batches for row in batch)
            for batches in epoch(40, 2, 8, number=number, seed=seed)
        ]

    found = [order for number in range(2) for seed in range(2) for order in orders(number, seed)]
    assert len(set(found)) == 8
    assert orders(1, 1) == orders(1, 1)


def test_without_a_seed_rows_keep_their_order():
    assert epoch(7, 2, 2, seed=None) == [[[0, 2], [4, 6]], [[1, 3], [5]]] or epoch(7, 2, 2, seed=None) == [
        [[0, 2, 4, 6]],
        [[1, 3, 5]],
    ]


def test_fewer_rows_than_processes_are_refused():
    with pytest.raises(TrainingError, match="at least one row for each of 3 processes, but there are 2; start fewer"):
        RankBatches(2, Share(0, 3), 4)
