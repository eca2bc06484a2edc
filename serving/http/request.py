"""What a route needs of a request: its body, within bounds on bytes and time, and to know when its caller leaves."""

from __future__ import annotations

import asyncio
import re
import uuid
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

from starlette.requests import ClientDisconnect, Request

from dubio.serving.errors import BodyTooLarge, BodyTooSlow, InvalidRequest, UnsupportedEncoding

# zlib's name for each format: 16 adds gzip's header, and `deflate` means zlib's wrapping of it in HTTP.
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
# Loopback and data-centre links outrun the higher levels.
_LEVEL = 1
# A thousandfold at most: as many bytes of a bomb are inflated in about a millisecond.
_LONG_BYTES = 1024
# Most answers are ready sooner; only a request that waits longer pays for being watched.
_UNWATCHED_SECONDS = 0.02

# A caller's own id is taken only if it can go into a header and a log line as it is.
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")

T = TypeVar("T")


def name_request(given: bytes) -> bytes:
    """The id of a request: the caller's, `given` in the header X-Request-Id, if it is sane, or else one of ours."""
    return given if _SANE_ID.match(given) else uuid.uuid4().hex.encode()


def read_encoding(header: str | None) -> str | None:
    """The format that a Content-Encoding header names; None if the body is plain.

    Raises:
        UnsupportedEncoding: Any other format, or several on top of each other.
    """
    encoding = (header or "identity").strip().lower()
    if encoding == "identity":
        return None
    if encoding not in _WINDOW:
        raise UnsupportedEncoding(
            f"Expected the body plain or with Content-Encoding gzip or deflate, but Content-Encoding is "
            f"{encoding[:40]!r}; send it plain."
        )
    return encoding


def inflate(body: bytes, *, encoding: str, max_bytes: int) -> bytes:
    """The plain body; never more than `max_bytes` of it are held.

    Raises:
        BodyTooLarge: It is larger.
        InvalidRequest: It is damaged, cut short, or has bytes behind its end.
    """
    inflater = zlib.decompressobj(_WINDOW[encoding])
    try:
        # One byte more than allowed tells a body that is too large from one that just fits.
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidRequest(
            f"Expected the body to be compressed with {encoding}, as Content-Encoding says, but {error}; "
            "compress it again, or send it plain."
        ) from error
    if len(plain) > max_bytes:
        raise BodyTooLarge(
            f"Expected a body of at most {max_bytes} bytes once it is decompressed, but it has more; "
            "split the instances over several requests."
        )
    if not inflater.eof or inflater.unused_data:
        what = "bytes follow its end" if inflater.eof else "it ends too early"
        raise InvalidRequest(f"Expected one whole {encoding} body, but {what}; send all of it and nothing more.")
    return plain


def choose(accept: str | None) -> str | None:
    """The format for an answer to a request with this Accept-Encoding header; None for plain.

    The larger weight wins, gzip if they are equal; what is not named is not wanted.
    """
    weights = {}
    for part in (accept or "").lower().split(","):
        name, _, parameters = part.partition(";")
        if name.strip() in _WINDOW:
            weights[name.strip()] = _weight(parameters)
    best = max(sorted(weights, reverse=True), key=weights.__getitem__, default=None)  # gzip sorts behind deflate
    return best if best and weights[best] > 0 else None


def _weight(parameters: str) -> float:
    key, _, value = parameters.partition("=")
    if key.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def compress(body: bytes, *, encoding: str) -> bytes:
    """The body in the format that `choose` named."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[encoding])
    return compressor.compress(body) + compressor.flush()


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """The whole plain body; nothing beyond `max_bytes` is kept, whatever Content-Length says or leaves out.

    Args:
        request: Whose body nobody read yet.
        max_bytes: Of the body, as it is sent and once it is decompressed.
        seconds: Within which all of it must come.

    Raises:
        BodyTooLarge: It has more bytes.
        BodyTooSlow: It did not come in time.
        UnsupportedEncoding: It is compressed in a way that is not read.
        InvalidRequest: It is damaged.
    """
    encoding = read_encoding(request.headers.get("content-encoding"))
    body = await _receive(request, max_bytes=max_bytes, seconds=seconds)
    if encoding is None:
        return body
    return await offload_if(len(body) > _LONG_BYTES, lambda: inflate(body, encoding=encoding, max_bytes=max_bytes))


async def _receive(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(f"{declared} bytes", max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > max_bytes:
                    raise _too_large("more", max_bytes)
                body += chunk
    except TimeoutError as error:
        raise BodyTooSlow(
            f"Expected the body within {seconds:g} s, but only {len(body)} bytes came; send smaller requests."
        ) from error
    return bytes(body)


def _too_large(got: str, max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"Expected a body of at most {max_bytes} bytes, but got {got}; split the instances over several requests."
    )


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancel the block when the caller of `request`, whose body was read, disconnects.

    Its work is then dropped before it is computed.

    Raises:
        ClientDisconnect: The caller left; nobody waits for an answer.
    """
    loop = asyncio.get_running_loop()
    waiting = cast("asyncio.Task[object]", asyncio.current_task())  # a coroutine runs in one
    left = False
    watcher: asyncio.Task[None] | None = None

    async def cancel_when_left() -> None:
        nonlocal left
        # The body was read, so the next message can only be that the caller left.
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        waiting.cancel()

    def watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(cancel_when_left())

    timer = loop.call_later(_UNWATCHED_SECONDS, watch)
    try:
        yield
    except asyncio.CancelledError as error:
        if not left:
            raise
        waiting.uncancel()
        raise ClientDisconnect from error
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def offload_if(long: bool, work: Callable[[], T]) -> T:
    """`work()`, in a thread if it is long: a thread costs more than a millisecond's work is worth."""
    return await asyncio.to_thread(work) if long else work()
