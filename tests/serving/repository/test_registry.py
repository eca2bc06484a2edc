from __future__ import annotations

import gc

from dubio.models import Predictor
from dubio.serving.repository.registry import Registry, ServedModel, State

STAMP, OTHER = ((1, 2, 3, 4),), ((1, 2, 3, 5),)


def lines(registry: Registry) -> list[tuple[str, str, str]]:
    return [(each.name, each.version, each.state) for each in registry.states()]


def test_named_models_come_first_and_versions_by_number(predictor: Predictor) -> None:
    registry = Registry(("z", "y"))
    for name, version in [("b", "1"), ("a", "10"), ("a", "9"), ("y", "1"), ("z", "1")]:
        registry.loaded(ServedModel(name, version, predictor), STAMP)
    assert list(registry.served) == ["z", "y", "a", "b"]
    assert list(registry.served["a"]) == ["9", "10"]
    assert [line[:2] for line in lines(registry)] == [("z", "1"), ("y", "1"), ("a", "9"), ("a", "10"), ("b", "1")]


def test_what_is_served_is_replaced_as_a_whole(predictor: Predictor) -> None:
    registry = Registry(())
    before = registry.served
    first, second = (ServedModel("a", "1", predictor) for _ in range(2))
    registry.loaded(first, STAMP)
    between = registry.served
    registry.loading(("a", "1"))
    assert registry.served is between  # the first answers until the second takes over
    registry.loaded(second, OTHER)
    assert "a" not in before
    assert between["a"]["1"] is first
    assert registry.served["a"]["1"] is second
    assert registry.stamp(("a", "1")) == OTHER


def test_a_version_loads_fails_serves_and_goes(predictor: Predictor) -> None:
    registry, key = Registry(()), ("a", "1")
    registry.loading(key)
    assert lines(registry) == [("a", "1", State.LOADING)]
    registry.failed(key, STAMP, "It is damaged.")
    assert lines(registry) == [("a", "1", State.UNAVAILABLE)]
    assert registry.states()[0].reason == "It is damaged."
    assert registry.stamp(key) == STAMP
    assert not registry.is_current(key, STAMP)

    registry.loading(key)
    registry.loaded(ServedModel(*key, predictor), OTHER)
    assert lines(registry) == [("a", "1", State.READY)]
    assert registry.states()[0].reason == ""
    assert registry.is_current(key, OTHER)
    assert not registry.is_current(key, STAMP)

    registry.failed(key, STAMP, "It is damaged.")
    assert lines(registry) == [("a", "1", State.READY)]
    assert "the old one goes on: It is damaged." in registry.states()[0].reason
    assert registry.is_served(key)
    assert not registry.is_current(key, STAMP)

    registry.forget(key)
    assert lines(registry) == registry.known() == []
    assert not registry.served


def test_a_version_is_unloading_until_nobody_uses_it(predictor: Predictor) -> None:
    registry, key = Registry(()), ("a", "1")
    used = ServedModel(*key, predictor)
    registry.loaded(used, STAMP)
    registry.unloaded(key, "By request.")
    assert not registry.is_served(key)
    assert lines(registry) == [("a", "1", State.UNLOADING)]
    del used
    gc.collect()
    assert lines(registry) == [("a", "1", State.UNAVAILABLE)]
    assert registry.states()[0].reason == "By request."
