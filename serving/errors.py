"""What can go wrong while serving. No class here knows HTTP; `http/problem_details.py` decides the status."""

from __future__ import annotations


class ServingError(Exception):
    """Anything the service refuses to do, with a message that says what to do instead."""


class InvalidModelSource(ServingError):
    """A `name=path` that cannot become a route."""


class InvalidKeys(ServingError):
    """API keys that cannot be read or break a rule. The message never repeats one."""


class TracingUnavailable(ServingError):
    """Traces are wanted but cannot be made."""


class UnusableFolder(ServingError):
    """A folder has no room for what the service must keep in it."""


class InvalidState(ServingError):
    """A file of the state folder cannot be gone on with."""


class NotWatched(ServingError):
    """A model makes no promise that its rows could break."""


class ShadowEnded(ServingError):
    """A shadow cannot answer any more, or never could."""


class UnknownShadow(ServingError):
    """A model has no shadow."""


class PromotionRefused(ServingError):
    """A shadow is not known to be good enough, or cannot take over."""


class AddressRefused(ServingError):
    """The system does not let the service listen where it is to."""


class RpcUnavailable(ServingError):
    """gRPC is wanted but its libraries are not installed."""


class ProcessUnavailable(ServingError):
    """Predictions are to be computed in a process of their own, which cannot be started."""


class UnusableDevice(ServingError):
    """A device that torch does not know or cannot reach."""


class StoreUnusable(ServingError):
    """A database that cannot be the store."""


class StoreOff(ServingError):
    """The caller asks for what is stored, and nothing is."""


class StoreUnavailable(ServingError):
    """The store's database does not answer now."""


class UnknownReview(ServingError):
    """Nothing of the kind is stored."""


class AmbiguousFeedback(ServingError):
    """A true label that could be of several different inputs."""


class SelfTestFailed(ServingError):
    """A loaded model whose trial prediction is not finite, not repeatable or does not vary."""


class LoadFailed(ServingError):
    """A model could not be loaded in full; what served before still does."""


class ControlRefused(ServingError):
    """Loading and unloading by request would contradict how the service was started."""


class NotReady(ServingError):
    """The service holds no model that could answer."""


class UnknownModel(ServingError):
    """The caller asked for a model that is not loaded."""


class Unauthorized(ServingError):
    """The caller did not show an API key that is known."""


class Forbidden(ServingError):
    """The caller's API key does not reach this far."""


class Misdirected(ServingError):
    """The request names a host that is none of this service's names."""


class CrossOrigin(ServingError):
    """A page of another origin asks, which may not."""


class Overloaded(ServingError):
    """The queues are full.

    Args:
        message: What to do instead.
        retry_after: In how many seconds to try again.
    """

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyCalls(Overloaded):
    """More calls at a time than a process takes."""


class OutOfMemory(Overloaded):
    """Not even one instance could be computed in the memory that is left."""

    def __init__(self) -> None:
        super().__init__(
            "There is not enough memory for a prediction right now; try again in a moment, or ask fewer members.",
            retry_after=5,
        )


class ComputationLost(ServingError):
    """Nothing can be computed by this process any more.

    Args:
        why: A sentence without its end.

    Attributes:
        retry_after: In how many seconds to try again: about what a small model takes to start.
    """

    retry_after = 5

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"{why}, so the service's process ends; try again once another has taken its place.")


class DeviceLost(ComputationLost):
    """An accelerator failed so that nothing can be computed on it by this process any more."""

    def __init__(self) -> None:
        super().__init__("The device of this process failed")


class DeadlineExceeded(ServingError):
    """The answer was not ready in the time that the caller gave it."""


class Stopping(ServingError):
    """The service was told to stop before it could answer."""


class UnsupportedCall(ServingError):
    """A call that the protocol has but this service does not answer."""


class UnknownService(ServingError):
    """The caller asks how a service stands that is not here."""


class MalformedJSON(ServingError):
    """The body is not JSON."""


class InvalidRequest(ServingError):
    """The body is JSON but breaks a rule on keys, types, shapes or values."""


class TooManyRows(ServingError):
    """More instances than one request may carry."""


class BodyTooLarge(ServingError):
    """More bytes than one request may carry."""


class BodyTooSlow(ServingError):
    """The body did not arrive in time."""


class UnsupportedEncoding(ServingError):
    """The body is compressed in a way that is not read."""


class UnsupportedContentType(ServingError):
    """The body is said to be what no client of this service sends."""
