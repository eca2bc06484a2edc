"""Compressed bodies: what comes in is inflated up to a cap, what goes out is compressed for those who ask."""

from __future__ import annotations

import zlib

from serving.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding

# zlib's name for each format: 16 adds gzip's header, and `deflate` means zlib's wrapping of it in HTTP.
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
# Loopback and data-centre links outrun the higher levels.
_LEVEL = 1


def read_encoding(header: str | None) -> str | None:
    """The format that a Content-Encoding header names; None if the body is plain.

    Raises:
        UnsupportedEncoding: any other format, or several on top of each other.
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
        BodyTooLarge: it is larger.
        InvalidRequest: damaged, cut short, or with bytes behind its end.
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
