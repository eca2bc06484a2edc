"""The store as the rest of the service sees it: it takes answers without failing or slowing one, and reads them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from dubio.models import Prediction
from dubio.serving.errors import StoreUnavailable
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store import comparisons
from dubio.serving.store.accuracy import Accuracy
from dubio.serving.store.database import Database, tell
from dubio.serving.store.drawn import Drawn
from dubio.serving.store.inputs import StoredInput
from dubio.serving.store.retention import Retention
from dubio.serving.store.rows import KeptRows, Signature, size
from dubio.serving.store.shadow_rows import ShadowRows
from dubio.serving.store.tables import Kept
from dubio.serving.store.writer import Writer

_log = logging.getLogger("dubio")
# Reads of a database that stands still keep no thread from others, and no reader waiting for ever.
_READERS = 2
_READ_SECONDS = 30.0
_START_SECONDS = 5.0
_CLOSE_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Keeping:
    """What is kept, and for how long.

    Attributes:
        stored_input: How much of the inputs.
        share: Of the rows that are not flagged.
        retention: Of all rows.
        most_rows: That may wait to be written.
        most_bytes: That these may take.
    """

    stored_input: StoredInput
    share: float
    retention: Retention
    most_rows: int
    most_bytes: int


class Store:
    """Keeps flagged rows, a share of the others, and those that a caller asks it to keep.

    Args:
        database: Where.
        keeping: What, and for how long.
        written: Told how many rows are on disk.
        dropped: Told how many rows were lost.
    """

    def __init__(
        self, database: Database, keeping: Keeping, written: Callable[[int], None], dropped: Callable[[int], None]
    ) -> None:
        self.share = keeping.share
        self._database = database
        self._dropped = dropped
        self._writer = Writer(
            database,
            keeping.stored_input,
            keeping.retention,
            most_rows=keeping.most_rows,
            most_bytes=keeping.most_bytes,
            written=written,
            dropped=dropped,
        )
        self._random = random.Random()
        self._signatures: WeakKeyDictionary[ServedModel, Signature] = WeakKeyDictionary()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="dubio-store-read")
        self._broken = False

    def start(self) -> None:
        """Begin to write."""
        self._writer.start()

    @property
    def waiting_rows(self) -> int:
        """Rows that are not on disk yet."""
        return self._writer.waiting_rows

    @property
    def failing(self) -> bool:
        """Whether the database could not be written to when it was tried last."""
        return self._writer.failing

    def record(
        self,
        model: ServedModel,
        inputs: NDArray[np.float32],
        prediction: Prediction,
        *,
        request_id: str,
        sampled: Sequence[bool] | None = None,
        instance: Callable[[int], Any] | None = None,
        everything: bool = False,
    ) -> Future[bool] | None:
        """Keep what is to be kept of a request; whatever goes wrong is the store's, and said once.

        Args:
            model: That answered.
            inputs: Of all rows.
            prediction: Of all rows.
            request_id: By which rows are found again.
            sampled: What `draw` gave for these rows; drawn now if it was not asked before.
            instance: What the caller sent for a row, by its number, if that is no numbers.
            everything: Whether the caller asks to keep all rows, and waits until they are on disk.

        Returns:
            If so, what becomes true once they are, and false if they will never be.
        """
        try:
            drawn = self.draw(len(inputs)) if sampled is None else sampled
            return self._record(model, inputs, prediction, request_id, drawn, instance, everything)
        except Exception:
            if not self._broken:
                self._broken = True
                _log.exception("Cannot keep rows for the store; requests are answered all the same.")
            self._dropped(len(inputs))
            return None

    def _record(
        self,
        model: ServedModel,
        inputs: NDArray[np.float32],
        prediction: Prediction,
        request_id: str,
        sampled: Sequence[bool],
        instance: Callable[[int], Any] | None,
        everything: bool,
    ) -> Future[bool] | None:
        flags = None if prediction.flags is None else prediction.flags.flagged
        flagged = [False] * len(inputs) if flags is None else flags.tolist()
        numbers = [row for row in range(len(inputs)) if everything or flagged[row] or sampled[row]]
        if not numbers:
            return None
        needed = size(len(numbers), len(numbers) * (inputs[0].nbytes + 3 * prediction.probabilities[0].nbytes))
        if not self._writer.has_room(len(numbers), needed):  # before anything is copied
            self._dropped(len(numbers))
            return None
        kept = [Kept.FLAGGED if flagged[row] else Kept.SAMPLED if sampled[row] else Kept.ASKED for row in numbers]
        signature = self._signatures.get(model)
        if signature is None:
            signature = self._signatures[model] = Signature.of(model)
        rows = KeptRows.of(signature, request_id, np.array(numbers), kept, self.share, inputs, instance, prediction)
        return self._writer.put(rows, notify=everything)

    def draw(self, rows: int) -> list[bool]:
        """Draw a share of so many rows, to be kept whatever is said about them."""
        # A list, because most requests have few rows, for which numpy is slower.
        return [self._random.random() < self.share for _ in range(rows)]

    def keep_labels(
        self, pair: comparisons.Compared, drawn: Drawn, live: Sequence[str], shadow: Sequence[str | None]
    ) -> None:
        """Keep what two versions said about the rows of a request that are kept whatever was said about them.

        Args:
            pair: Who is compared.
            drawn: The request.
            live: Labels of the version that answered, of all rows.
            shadow: Those of the shadow; None where it refused.
        """
        if rows := drawn.rows:
            self._writer.put(ShadowRows.of(pair, drawn.request_id, rows, live, shadow), notify=False)

    async def accuracy(self, pair: comparisons.Compared) -> Accuracy:
        """How often both of a pair are right, by what feedback says about rows that both answered.

        Raises:
            StoreUnavailable: The database cannot be reached, or takes too long.
        """
        return await self.read(lambda connection: comparisons.read(connection, pair))

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """The result of `work`, which reads.

        Raises:
            StoreUnavailable: The database cannot be reached, or takes too long.
        """
        return await self._run(work, self._database.reading)

    async def change(self, work: Callable[[sa.Connection], T]) -> T:
        """The result of `work`, whose changes are then on disk.

        Raises:
            StoreUnavailable: The database cannot be reached, or takes too long.
        """
        return await self._run(work, self._database.writing)

    async def stream(
        self,
        stack: ExitStack,
        plan: Callable[[sa.Connection], T],
        write: Callable[[sa.Connection, T], Iterator[bytes]],
    ) -> tuple[T, Iterator[bytes]]:
        """What `plan` reads, and what `write` then reads from the same connection, which `stack` closes.

        Raises:
            StoreUnavailable: The database cannot be reached, or takes too long.
        """

        def begin(connection: sa.Connection) -> tuple[T, Iterator[bytes]]:
            planned = plan(connection)
            return planned, write(connection, planned)

        @contextmanager
        def kept_open() -> Iterator[sa.Connection]:
            with ExitStack() as opened:
                connection = opened.enter_context(self._database.reading())
                yield connection
                stack.push(opened.pop_all())

        return await self._run(begin, kept_open)

    async def _run(
        self, work: Callable[[sa.Connection], T], connect: Callable[[], AbstractContextManager[sa.Connection]]
    ) -> T:
        def run() -> T:
            self._writer.wait_for_tables(_START_SECONDS)
            with connect() as connection:
                return work(connection)

        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await asyncio.wrap_future(self._readers.submit(run))
        except (SQLAlchemyError, OSError) as error:  # a time that is up is one of these
            _log.warning("The store cannot be read: %s", tell(error))
            raise StoreUnavailable(
                "Expected the store's database to answer, but it does not; predictions go on. Try again in a moment."
            ) from error

    def close(self) -> None:
        """Write what waits, for a moment."""
        self._writer.close(_CLOSE_SECONDS)
        self._readers.shutdown(wait=False, cancel_futures=True)
