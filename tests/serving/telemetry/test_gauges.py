from __future__ import annotations

from pathlib import Path

from dubio.serving.telemetry.gauges import GAUGES, IN_FLIGHT, WAITING_ROWS, Gauges

NOTHING = {gauge.name: 0 for gauge in GAUGES}


def shown(gauges: Gauges) -> dict[str, float]:
    return {sample.name: sample.value for metric in gauges.collect() for sample in metric.samples}


def test_a_process_alone_is_measured_when_it_is_asked() -> None:
    gauges, rows = Gauges(), [1, 2, 3]
    gauges.register(WAITING_ROWS, lambda: len(rows))
    assert shown(gauges) == {**NOTHING, WAITING_ROWS.name: 3}
    rows.clear()
    assert shown(gauges)[WAITING_ROWS.name] == 0


def test_workers_are_added_up_as_each_last_saw_itself(tmp_path: Path) -> None:
    one, other = Gauges(tmp_path, 0), Gauges(tmp_path, 1)
    waiting = {"one": 3.0, "other": 4.0}
    one.register(WAITING_ROWS, lambda: waiting["one"])
    other.register(WAITING_ROWS, lambda: waiting["other"])
    other.register(IN_FLIGHT, lambda: 2)
    assert shown(one)[WAITING_ROWS.name] == 3
    other.update()
    assert shown(one) == {**NOTHING, IN_FLIGHT.name: 2, WAITING_ROWS.name: 7}
    waiting["one"] = 0
    assert shown(other)[WAITING_ROWS.name] == 7
    one.update()
    assert shown(other)[WAITING_ROWS.name] == 4


def test_a_worker_that_is_gone_has_nothing_under_way(tmp_path: Path) -> None:
    one, other = Gauges(tmp_path, 0), Gauges(tmp_path, 255)
    other.register(IN_FLIGHT, lambda: 5)
    other.update()
    assert shown(one)[IN_FLIGHT.name] == 5
    Gauges(tmp_path, 255)  # as the supervisor and the next worker in this place do
    assert shown(one)[IN_FLIGHT.name] == 0
