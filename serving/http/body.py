"""Reads a request's body, within bounds on bytes, before and after decompression, and on time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from serving.aside import aside
from serving.errors import BodyTooLarge, BodyTooSlow
from serving.http.compression import inflate, read_encoding

# A thousandfold at most: as many bytes of a bomb are inflated in about a millisecond.
_LONG_BYTES = 1024


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """The whole plain body; nothing beyond `max_bytes` is kept, whatever Content-Length says or leaves out.

    Raises:
        BodyTooLarge, BodyTooSlow, UnsupportedEncoding: it is not read to its end.
        InvalidRequest: it is damaged.
    """
    encoding = read_encoding(request.headers.get("content-encoding"))
    body = await _receive(request, max_bytes=max_bytes, seconds=seconds)
    if encoding is None:
        return body
    return await aside(len(body) > _LONG_BYTES, lambda: inflate(body, encoding=encoding, max_bytes=max_bytes))


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
