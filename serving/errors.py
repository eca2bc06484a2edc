"""What can go wrong while serving. No class here knows HTTP; `problems.py` decides the status.

ServingError
├── InvalidModelSource      the operator named a model in a way that cannot be
├── UnusableDevice          the operator named a device that torch cannot use here
├── SelfTestFailed          a model was read, but its answers cannot be trusted
├── NotReady                nothing is loaded yet
├── UnknownModel
└── RequestError            the caller can mend it
    ├── MalformedJSON
    ├── InvalidRequest      JSON, but not a request: keys, types, shapes
    ├── TooManyRows
    ├── BodyTooLarge
    ├── BodyTooSlow
    └── UnsupportedEncoding
"""

from __future__ import annotations


class ServingError(Exception):
    """Anything the service refuses to do, with a message that says what to do instead."""


class InvalidModelSource(ServingError):
    """A `name=path` that cannot become a route."""


class UnusableDevice(ServingError):
    """A device that torch does not know or cannot reach."""


class SelfTestFailed(ServingError):
    """A loaded model whose trial prediction is not finite, not repeatable or does not vary."""


class NotReady(ServingError):
    """The service holds no model that could answer."""


class UnknownModel(ServingError):
    """The caller asked for a model that is not loaded."""


class RequestError(ServingError):
    """The request itself is at fault."""


class MalformedJSON(RequestError):
    """The body is not JSON."""


class InvalidRequest(RequestError):
    """The body is JSON but breaks a rule on keys, types, shapes or values."""


class TooManyRows(RequestError):
    """More instances than one request may carry."""


class BodyTooLarge(RequestError):
    """More bytes than one request may carry."""


class BodyTooSlow(RequestError):
    """The body did not arrive in time."""


class UnsupportedEncoding(RequestError):
    """The body is compressed."""
