"""Every error that crosses a process or reaches a client, each with its HTTP status.

    client ──► front-end worker ──► engine ──► pool worker, replica worker
           ◄── one line of JSON ◄── status ◄── Failure(kind, message)

An error's text is written for the client: it names no path, address, class or trace. What only the operator may see
goes into the log under the request's id. A worker sends an error as its class's name and its text (`messages.Failure`),
and `from_name` makes it again: exception objects are never pickled across processes.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import ClassVar

# Whoever is told to come again is told at most this many seconds: by then much will have changed.
MAX_RETRY_AFTER_S = 60
# Bytes of a message, so that with the rest of it a body has 500 at most.
_LONGEST_MESSAGE = 340


class ServingError(Exception):
    """A request that cannot be answered as asked. The base of all errors that have an HTTP status.

    Args:
        message: One line for the client; the class's own text where it is left out.
    """

    status: int = 500
    code: str = "internal_error"
    default_message: ClassVar[str] = "the request failed; the log has the reason under this request id"
    detail: str = ""  # for the log only: the class and text of what was raised in a worker
    spared: str = ""  # where nobody waited any more: the function or stage that was not begun because of it

    def __init__(self, message: str | None = None) -> None:
        """Keep the first line of `message`: an answer is one line, whatever a caller hands over."""
        text = message or self.default_message
        super().__init__(_short(text.splitlines()[0]) if text else "")

    @property
    def message(self) -> str:
        """The one-line text for the client."""
        return str(self)

    @property
    def retry_after_s(self) -> int | None:
        """Seconds after which the same request may succeed, or None where repeating it is of no use."""
        return None

    def content(self, request_id: str) -> dict[str, str | int]:
        """What the client is told."""
        content: dict[str, str | int] = {"error": self.code, "message": self.message, "request_id": request_id}
        if self.retry_after_s is not None:
            content["retry_after_s"] = self.retry_after_s  # SageMaker drops the header of that name
        return content

    def body(self, request_id: str) -> bytes:
        """The answer's body: one line of JSON."""
        return json.dumps(self.content(request_id)).encode() + b"\n"


class BadRequest(ServingError):
    """400: what the client sent cannot be read."""

    status = 400
    code = "bad_request"
    default_message = "the request cannot be read"


class NotAcceptable(ServingError):
    """406: no type that the client accepts can be made."""

    status = 406
    code = "not_acceptable"
    default_message = "none of the accepted types can be made"


class PayloadTooLarge(ServingError):
    """413: the body, or the picture in it, is over a limit."""

    status = 413
    code = "payload_too_large"
    default_message = "the request is too large"


class UnsupportedMediaType(ServingError):
    """415: the content type is not one that is served."""

    status = 415
    code = "unsupported_media_type"
    default_message = "this content type is not supported"


class Unprocessable(ServingError):
    """422: the request stopped a worker process, and stopped another when it was tried again."""

    status = 422
    code = "unprocessable"
    default_message = "the request stopped a worker process twice and is not tried again"


class KnownUnprocessable(Unprocessable):
    """422: the same content has been answered so before; no worker is given it again for a while."""

    code = "known_unprocessable"
    default_message = "the same content has stopped worker processes before and is refused for an hour"


class RequestTimeout(ServingError):
    """408: the client did not send its request in time."""

    status = 408
    code = "request_timeout"
    default_message = "the request did not come in time"


class ClientGone(ServingError):
    """499, which nobody receives, only the log and the metrics: the client has closed its connection. The number is nginx's."""

    status = 499
    code = "client_gone"
    default_message = "the client has gone"


class FunctionFailed(ServingError):
    """500: a function of the user's script raised. The trace is in the log."""

    code = "function_failed"


class OutOfMemory(ServingError):
    """500: a function ran out of memory. The engine tries such a request once more, in a worker that has no other.

    Not 503: it has had all the memory that there is, so coming again is of no use.
    """

    code = "out_of_memory"
    default_message = "the request needs more memory than there is"


class ResponseTooLarge(ServingError):
    """500: the answer is over the response limit."""

    code = "response_too_large"
    default_message = "the answer is larger than the response limit"


class Unavailable(ServingError):
    """503: nothing can serve the request now."""

    status = 503
    code = "unavailable"
    default_message = "no healthy replica can take the request now"

    @property
    def retry_after_s(self) -> int | None:
        """A replaced worker is back within seconds."""
        return 5


class Overloaded(Unavailable):
    """503: the queue is full, or too long for the request's time limit."""

    code = "overloaded"
    default_message = "the queue is full"

    def __init__(self, message: str | None = None, retry_after_s: int = 1) -> None:
        """Take when there will be room, in seconds from 1 to `MAX_RETRY_AFTER_S`."""
        super().__init__(message)
        self._retry_after_s = retry_after_s

    @property
    def retry_after_s(self) -> int | None:
        """When there will be room, as far as that can be estimated."""
        return self._retry_after_s


class Exhausted(Unavailable):
    """503: the machine has no memory, file descriptor or room left for this request now."""

    code = "exhausted"
    default_message = "the endpoint has no memory or files left for this request now"


class Draining(Unavailable):
    """503: the container is stopping and takes nothing new."""

    code = "draining"
    default_message = "the endpoint is stopping"


class DeadlineExceeded(ServingError):
    """504: the request's time is over."""

    status = 504
    code = "deadline_exceeded"
    default_message = "the request took longer than its time limit"


class ChosenStatus(ServingError):
    """A status that the user's script chose and that has no class of its own here, such as 404 or 429."""

    def __init__(self, message: str | None = None, status: int = 500) -> None:
        """Take a status from 400 to 599."""
        super().__init__(message)
        self.status = int(status)  # an `HTTPStatus` is nothing that may be sent to another process
        self.code = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_").replace("'", "")


class WorkerDied(ServingError):
    """503: the worker process ended while it worked on this request. The engine tries such a request once more."""

    status = 503
    code = "worker_died"
    default_message = "the process that served the request ended"


class WorkerLost(WorkerDied):
    """The worker process ended while this request waited in it, so not because of it. It is free to go to another."""


class WorkerKilled(WorkerDied):
    """The worker process was ended from outside while it worked on this request, which counts nothing against it."""


class UnknownStructure(ServingError):
    """What `input_fn` made has tensors where no trial has seen any, so it is not known which belong on the device."""


class StartupError(Exception):
    """The container cannot start; its text is the one line that says why."""

    exit_code: int = 3


class SettingsError(StartupError):
    """A setting has a value that is not allowed; the text has its name, its value and what is allowed."""

    exit_code = 2


class DeviceError(StartupError):
    """The devices asked for, or the GPUs that are there, cannot be used."""


class ModelError(StartupError):
    """The user's script or its model cannot be loaded, or does not keep the contract."""


class ScriptImportError(ModelError):
    """Importing the user's script raised."""


def _short(text: str) -> str:
    """A text cut to what a body has room for, in bytes as JSON has them: a character beyond ASCII takes up to twelve."""
    text = text[:_LONGEST_MESSAGE]
    while len(json.dumps(text)) > _LONGEST_MESSAGE + 2:  # with its quotes
        text = text[: len(text) * 3 // 4]
    return text


def _tree(root: type[ServingError]) -> dict[str, type[ServingError]]:
    return {root.__name__: root} | {name: cls for sub in root.__subclasses__() for name, cls in _tree(sub).items()}


_WITH_CLASS: tuple[type[ServingError], ...] = (
    *(BadRequest, NotAcceptable, RequestTimeout, PayloadTooLarge, UnsupportedMediaType, Unprocessable),
    *(FunctionFailed, Unavailable, DeadlineExceeded),
)
_BY_STATUS = {cls.status: cls for cls in _WITH_CLASS}


def from_status(status: int, message: str) -> ServingError:
    """The error for a status that a script chose by itself; a status that HTTP does not know is 500."""
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    known = 400 <= status < 600 and status in {known.value for known in HTTPStatus}
    return ChosenStatus(message, status) if known else FunctionFailed(message)


def from_name(name: str, message: str, status: int) -> ServingError:
    """The error that a worker named, with its text; a `ServingError` where the name is not one of this module's."""
    if name == ChosenStatus.__name__:
        return from_status(status, message)
    return _tree(ServingError).get(name, ServingError)(message)


def name_of(error: ServingError) -> str:
    """The name by which another process knows an error: of its nearest class in this module."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == __name__)
