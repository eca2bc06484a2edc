from __future__ import annotations

import gc

from dubio.models import Predictor
from dubio.serving.repository.registry import Inventory, ServedModel, State

STAMP, OTHER = ((1, 2, 3, 4),), ((1, 2, 3, 5),)


def lines(inventory: Inventory) -> list[tuple[str, str, str]]:
    return [(each.name, each.version, each.state) for each in inventory.states()]


def test_named_models_come_first_and_versions_by_number(predictor: Predictor) -> None:
    inventory = Inventory(("z", "y"))
    for name, version in [("b", "1"), ("a", "10"), ("a", "9"), ("y", "1"), ("z", "1")]:
        inventory.loaded(ServedModel(name, version, predictor), STAMP)
    assert list(inventory.served) == ["z", "y", "a", "b"]
    assert list(inventory.served["a"]) == ["9", "10"]
    assert [line[:2] for line in lines(inventory)] == [("z", "1"), ("y", "1"), ("a", "9"), ("a", "10"), ("b", "1")]


def test_what_is_served_is_replaced_as_a_whole(predictor: Predictor) -> None:
    inventory = Inventory(())
    before = inventory.served
    first, second = (ServedModel("a", "1", predictor) for _ in range(2))
    inventory.loaded(first, STAMP)
    between = inventory.served
    inventory.loading(("a", "1"))
    assert inventory.served is between  # the first answers until the second takes over
    inventory.loaded(second, OTHER)
    assert "a" not in before
    assert between["a"]["1"] is first
    assert inventory.served["a"]["1"] is second
    assert inventory.stamp(("a", "1")) == OTHER


def test_the_way_of_a_version(predictor: Predictor) -> None:
    inventory, key = Inventory(()), ("a", "1")
    inventory.loading(key)
    assert lines(inventory) == [("a", "1", State.LOADING)]
    inventory.failed(key, STAMP, "It is damaged.")
    assert lines(inventory) == [("a", "1", State.UNAVAILABLE)]
    assert inventory.states()[0].reason == "It is damaged."
    assert inventory.stamp(key) == STAMP
    assert not inventory.is_current(key, STAMP)

    inventory.loading(key)
    inventory.loaded(ServedModel(*key, predictor), OTHER)
    assert lines(inventory) == [("a", "1", State.READY)]
    assert inventory.states()[0].reason == ""
    assert inventory.is_current(key, OTHER)
    assert not inventory.is_current(key, STAMP)

    inventory.failed(key, STAMP, "It is damaged.")
    assert lines(inventory) == [("a", "1", State.READY)]
    assert "the old one goes on: It is damaged." in inventory.states()[0].reason
    assert inventory.is_served(key)
    assert not inventory.is_current(key, STAMP)

    inventory.forget(key)
    assert lines(inventory) == inventory.known() == []
    assert not inventory.served


def test_a_version_is_unloading_until_nobody_uses_it(predictor: Predictor) -> None:
    inventory, key = Inventory(()), ("a", "1")
    used = ServedModel(*key, predictor)
    inventory.loaded(used, STAMP)
    inventory.unloaded(key, "By request.")
    assert not inventory.is_served(key)
    assert lines(inventory) == [("a", "1", State.UNLOADING)]
    del used
    gc.collect()
    assert lines(inventory) == [("a", "1", State.UNAVAILABLE)]
    assert inventory.states()[0].reason == "By request."
