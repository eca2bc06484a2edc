from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from dubio import models
from dubio.models import MLP, InputSpec, NetworkSpec, Predictor, RecurrentNet
from dubio.models.errors import UnreadableCheckpoint
from dubio.serving.errors import InvalidModelSource, NotReady, UnknownModel, UnusableDevice
from dubio.serving.repository import heap
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.registry import State
from dubio.serving.repository.repository import ModelRepository, ModelSource
from tests.serving.conftest import HIGH, SIDE, draw_bars, write_checkpoint


def repository(*sources: str, device: str = "cpu", root: Path | None = None, control: str = "none") -> ModelRepository:
    return ModelRepository(
        [ModelSource.parse(text) for text in sources], Loader(device=device, trusted=()), root=root, control=control
    )


def put(checkpoint: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / "part")
    return (folder / "part").rename(folder / "model.ckpt")


def test_names_must_differ() -> None:
    with pytest.raises(InvalidModelSource, match=r"'a' names both x.ckpt and y.ckpt; .* a-2=y.ckpt"):
        repository("a=x.ckpt", "a=y.ckpt")


def test_it_is_ready_once_everything_is_loaded(checkpoint: Path, numbers_checkpoint: Path) -> None:
    models = repository(f"bars={checkpoint}", f"row={numbers_checkpoint}")
    assert not models.ready
    with pytest.raises(NotReady, match="0 of 2 models are loaded"):
        models.get()
    models.load()
    assert models.ready
    assert models.get().name == "bars"
    assert [model.name for model in models] == ["bars", "row"]
    with pytest.raises(UnknownModel, match="did you mean `row`"):
        models.get("rov")
    with pytest.raises(UnknownModel, match="loaded: bars, row"):
        models.get("../../etc")


def test_nothing_is_not_ready() -> None:
    models = repository()
    models.load()
    assert not models.ready
    assert models.all_versions() == []
    with pytest.raises(NotReady, match="at least one checkpoint"):
        models.get("any")


def test_one_bad_file_keeps_it_unready(checkpoint: Path, tmp_path: Path) -> None:
    models = repository(f"bars={checkpoint}", f"gone={tmp_path / 'gone.ckpt'}")
    with pytest.raises(UnreadableCheckpoint, match="no such file"):
        models.load()
    assert not models.ready


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there(checkpoint: Path, device: str) -> None:
    with pytest.raises(UnusableDevice, match=f"but got '{device}'"):
        repository(f"bars={checkpoint}", device=device).load()


def test_the_highest_version_is_the_default_and_all_are_served(checkpoint: Path, tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        put(checkpoint, tmp_path / "bars" / version)
    models = repository(root=tmp_path)
    models.load()
    assert models.versions("bars") == ("2", "9", "10")
    assert models.get("bars").version == "10"
    assert [model.version for model in models] == ["10"]
    assert models.get("bars", "9").version == "9"
    assert [model.version for model in models.all_versions()] == ["2", "9", "10"]
    assert models.all_versions("bar") == []
    for version in ("1", "09", "", "../9", "9" * 5000):
        with pytest.raises(UnknownModel, match="loaded: 2, 9, 10") as caught:
            models.get("bars", version)
        assert len(str(caught.value)) < 200


def test_without_a_name_the_first_named_is_meant_or_the_only_one(
    checkpoint: Path, numbers_checkpoint: Path, tmp_path: Path
) -> None:
    put(checkpoint, tmp_path / "b" / "1")
    models = repository(root=tmp_path)
    models.load()
    assert models.get().name == "b"
    put(checkpoint, tmp_path / "a" / "1")
    asyncio.run(models.load_model("a"))
    with pytest.raises(UnknownModel, match="none comes first: a, b"):
        models.get()

    models = repository(f"row={numbers_checkpoint}", root=tmp_path)
    models.load()
    assert models.get().name == "row"
    asyncio.run(models.unload_model("row"))
    with pytest.raises(UnknownModel, match="got 'row'; loaded: a, b"):  # never another model's answer instead
        models.get()


def test_explicit_control_begins_with_what_the_operator_named(
    checkpoint: Path, numbers_checkpoint: Path, tmp_path: Path
) -> None:
    put(checkpoint, tmp_path / "bars" / "1")
    alone = repository(root=tmp_path, control="explicit")
    alone.load()
    assert not alone.ready
    with pytest.raises(NotReady, match="have an administrator load one"):
        alone.get("bars")
    assert [(each.name, each.state, each.reason) for each in alone.index()] == [
        ("bars", State.UNAVAILABLE, "It is not loaded.")
    ]
    asyncio.run(alone.load_model("bars"))
    assert alone.ready
    assert alone.get().name == "bars"

    beside = repository(f"row={numbers_checkpoint}", root=tmp_path, control="explicit")
    beside.load()
    assert [(each.name, each.state) for each in beside.index()] == [
        ("row", State.READY),
        ("bars", State.UNAVAILABLE),
    ]


def test_the_index_survives_a_directory_that_is_gone(checkpoint: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    put(checkpoint, root / "bars" / "1")
    models = repository(root=root)
    models.load()
    root.rename(tmp_path / "away")
    assert [(each.name, each.version, each.state) for each in models.index()] == [("bars", "1", State.READY)]


def test_loading_is_seen_and_holds_up_nothing(gated_checkpoint: Path, gate: Path, checkpoint: Path) -> None:
    repository_ = ModelRepository(
        [ModelSource("bars", checkpoint), ModelSource("slow", gated_checkpoint)],
        Loader(device="cpu", trusted=("gated_networks",)),
    )
    repository_.load()

    async def run() -> None:
        await repository_.unload_model("slow")
        gate.touch()
        loading = asyncio.create_task(repository_.load_model("slow"))
        while not gate.with_suffix(".waiting").exists():
            await asyncio.sleep(0.01)
        states = {each.name: each.state for each in repository_.index()}
        assert states == {"bars": State.READY, "slow": State.LOADING}
        assert repository_.get("bars").version == "1"
        assert repository_.ready
        gate.unlink()
        await loading
        assert repository_.get("slow").version == "1"

    asyncio.run(run())
    repository_.close()


def test_every_answer_under_swaps_is_exactly_the_old_or_the_new_one(
    checkpoint: Path, second_checkpoint: Path, tmp_path: Path
) -> None:
    """Threads ask without a pause while one file replaces the other; no answer fails or is a mixture."""
    noise = np.random.default_rng(0).uniform(0, 16, (20, 1, 8, 8)).astype(np.float32)
    # As a repository prepares them, which fills batches up to sizes that agree; these differ between processors.
    answers = [models.load(path).batch_invariant().predict(noise) for path in (checkpoint, second_checkpoint)]
    assert np.abs(answers[0].mc_mean - answers[1].mc_mean).max() > 0.1
    put(checkpoint, tmp_path)
    repository_ = repository(f"bars={tmp_path / 'model.ckpt'}")
    repository_.load()
    over = threading.Event()

    def ask() -> list[int]:
        seen = []
        while not over.is_set():
            got = repository_.get("bars").predictor.predict(noise)
            [which] = [
                index
                for index, expected in enumerate(answers)
                if np.array_equal(got.probabilities, expected.probabilities)
                and np.allclose(got.mc_mean, expected.mc_mean, atol=1e-5)
                and np.array_equal(got.flagged, expected.flagged)
            ]
            seen.append(which)
        return seen

    async def swap() -> None:
        for path in (second_checkpoint, checkpoint) * 3:
            put(path, tmp_path)
            await repository_.load_model("bars")

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        try:
            asyncio.run(swap())
        finally:
            over.set()
        seen = [which for each in asking for which in each.result()]
    repository_.close()
    assert set(seen) == {0, 1}


def test_what_was_swapped_out_goes_when_nobody_uses_it(
    checkpoint: Path, second_checkpoint: Path, tmp_path: Path, predictor: Predictor, bars: np.ndarray
) -> None:
    put(checkpoint, tmp_path)
    repository_ = repository(f"bars={tmp_path / 'model.ckpt'}")
    repository_.load()
    used = repository_.get()
    put(second_checkpoint, tmp_path)
    asyncio.run(repository_.load_model("bars"))
    assert repository_.get() is not used
    # Not to the last bit: each measured which strategy is the fastest.
    np.testing.assert_allclose(used.predictor.predict(bars).mc_mean, predictor.predict(bars).mc_mean, atol=1e-5)
    gone = weakref.ref(used), weakref.ref(used.predictor.network)
    del used
    gc.collect()
    assert [each() for each in gone] == [None, None]
    repository_.close()


@pytest.fixture
def frozen() -> Iterator[None]:
    """As the service runs: what there was at the start is no matter of the collector, which does not run meanwhile."""
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


CYCLIC = """
from dubio.models import MLP

class CyclicMLP(MLP):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.__dict__["itself"] = self
"""


@pytest.mark.parametrize(
    ("network", "strategy"),
    [
        (NetworkSpec(class_path="dubio.models.RecurrentNet", init_args={"features": 8, "width": 6}), "traced"),
        (NetworkSpec(class_path="cyclic_networks.CyclicMLP", init_args={"in_features": 64, "widths": [8]}), "vmap"),
    ],
)
@pytest.mark.parametrize("swaps", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("frozen")
def test_nothing_is_left_of_models_that_were_replaced(
    network: NetworkSpec, strategy: str, swaps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cyclic_networks.py").write_text(CYCLIC)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = {**network.init_args, "num_classes": 4, **({"rates": [0.3]} if "widths" in network.init_args else {})}
    spec = network.model_copy(update={"init_args": arguments})
    built = (RecurrentNet if strategy == "traced" else MLP)(**arguments)
    inputs = InputSpec(kind="image", shape=(1, SIDE, SIDE), mean=(4.0,), std=(4.0,), low=0.0, high=HIGH)
    written = write_checkpoint(tmp_path / "written.ckpt", built, spec, inputs, draw_bars)
    source = ModelSource("bars", put(written, tmp_path / "served"))
    repository_ = ModelRepository([source], Loader(device="cpu", trusted=["cyclic_networks"], strategy=strategy))
    repository_.load()
    heap.freeze()
    gone: list[weakref.ref[Tensor]] = []
    for _ in range(swaps):
        served = repository_.get().predictor
        assert isinstance(served, Predictor)
        gone += map(weakref.ref, served.network.parameters())
        del served
        put(written, tmp_path / "served")
        asyncio.run(repository_.load_model("bars"))
    assert gone
    assert not any(each() is not None for each in gone)
    repository_.close()


class Restless(ModelRepository):
    """A repository whose every other look fails."""

    looks = 0

    def __init__(self, enough: asyncio.Event) -> None:
        super().__init__([], Loader(device="cpu", trusted=()))
        self.enough = enough

    async def look(self) -> None:
        self.looks += 1
        if self.looks == 4:
            self.enough.set()
        if self.looks % 2:
            raise OSError("the disk is away")
        await super().look()


def test_it_looks_until_it_is_cancelled_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> int:
        repository = Restless(asyncio.Event())
        patient = asyncio.create_task(repository.watch(1000))
        await asyncio.sleep(0)
        assert repository.looks == 0
        patient.cancel()
        watching = asyncio.create_task(repository.watch(0.001))
        await asyncio.wait_for(repository.enough.wait(), 30)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        repository.close()
        return repository.looks

    assert asyncio.run(run()) >= 4
    assert "Could not look for changed models; trying again" in caplog.text
