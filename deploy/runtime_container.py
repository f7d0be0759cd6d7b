"""The container as the runtime proxy sees it: `POST /invocations`, an answer in pieces, and a time limit over all of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse

from runtime_fault import TIMED_OUT, ModelFault

_PIECE_BYTES = 1 << 16
# Of an error's text, which goes into a JSON document.
_MAX_ERROR_BYTES = 1 << 20


class ContainerAnswer:
    """An answer that has begun with status 200.

    Attributes:
        headers: Of the answer.
    """

    def __init__(self, response: HTTPResponse, connected: socket.socket, deadline: float, log: str) -> None:
        """Only the head has been read.

        Args:
            response: Of http.client.
            connected: What it is read from.
            deadline: Monotonic seconds by which the answer must be complete.
            log: Where the container's log is.
        """
        self.headers: Message = response.headers
        self._response = response
        self._connected = connected
        self._deadline = deadline
        self._log = log

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            ModelFault: where it is late (status 0), or ends too early (the container's status, and no message).
        """
        try:
            while piece := self._piece():
                yield piece
        except TimeoutError as error:
            raise ModelFault(0, TIMED_OUT, self._log) from error
        except (OSError, HTTPException) as error:
            raise ModelFault(self._response.status, None, self._log) from error
        if self._response.length:  # http.client says nothing of a body that ends before its announced length
            raise ModelFault(self._response.status, None, self._log)

    def body(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            ModelFault: as `pieces`; and where it has more bytes than the limit.
        """
        pieces, length = [], 0
        for piece in self.pieces():
            length += len(piece)
            if length > limit_bytes:
                raise ModelFault(self._response.status, f"the answer has more than {limit_bytes} bytes", self._log)
            pieces.append(piece)
        return b"".join(pieces)

    def _piece(self) -> bytes:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connected.settimeout(left_s)
        return self._response.read1(_PIECE_BYTES)


@contextmanager
def invoke_container(
    port: int, body: bytes, headers: Mapping[str, str], answer_limit_s: float, body_limit_s: float, log: str = ""
) -> Iterator[ContainerAnswer]:
    """Send one request, on a connection of its own: with keep-alive a container that restarts would cost a request.

    Args:
        port: Where the container listens, on this machine.
        body: The request's.
        headers: The request's.
        answer_limit_s: Until the answer's head.
        body_limit_s: Until its end, counted from the same moment.
        log: Where the container's log is, for errors.

    Yields:
        The answer, where its status is 2xx.

    Raises:
        ModelFault: where it is another status, or none in time (status 0), or nobody listens (status 0).
    """
    began = time.monotonic()
    connection = HTTPConnection("127.0.0.1", port, timeout=answer_limit_s)
    response: HTTPResponse | None = None
    try:
        try:
            connection.connect()
            connected = connection.sock
            with suppress(BrokenPipeError, ConnectionResetError):  # it had not read all, and may have answered nevertheless
                connection.request("POST", "/invocations", body, dict(headers))
            connected.settimeout(max(began + answer_limit_s - time.monotonic(), 0.001))
            response = connection.getresponse()
        except TimeoutError as error:
            raise ModelFault(0, TIMED_OUT, log) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ModelFault(0, f"no answer from the container on port {port}: {reason}", log) from error
        answer = ContainerAnswer(response, connected, began + body_limit_s, log)
        if not 200 <= response.status < 300:
            raise _refused(response.status, answer, log)
        yield answer
    finally:
        connection.close()
        if response is not None:
            response.close()  # which has the socket to itself where the container closes the connection


def _refused(status: int, answer: ContainerAnswer, log: str) -> ModelFault:
    try:
        return ModelFault(status, answer.body(_MAX_ERROR_BYTES).decode("utf-8", errors="replace").strip(), log)
    except ModelFault:
        return ModelFault(status, None, log)
