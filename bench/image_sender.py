"""Sends pictures to the running container, at the engine's socket as its front end does, each on a connection of its thread.

The engine gives a request that lost its worker to another one. Where none is left for the moment it refuses, and the picture is
sent again until one is back: a killed worker costs time and no picture.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from bench.bench_error import BenchError
from bench.image_outcome import Answered, Picture, PictureError
from multigpu_inference.errors import DeadlineExceeded, Draining, Overloaded, ServingError, Unavailable, WorkerDied
from multigpu_inference.messages import Answer, Invocation

_PAUSE_S = 0.5
# For so long a picture may be refused: a large model is loaded again in less.
PATIENCE_S = 300.0
# A picture whose time was over, or whose worker died, may have met one that another picture had upset: it is sent again, once.
_UNLUCKY_AT_MOST = 2
# By the code and not by the status, which any server between might choose.
_REFUSED = (Unavailable.code, Overloaded.code, Draining.code)
_UNLUCKY = {error.code: error for error in (DeadlineExceeded, WorkerDied)}
_PREPROCESS = "preprocess_ms"
_INFERENCE = re.compile(r"stage_\d+_ms|predict_ms")


class Client(Protocol):
    """A connection to the engine; `EngineClient` is one."""

    def invoke(self, invocation: Invocation, body: bytes) -> tuple[Answer, bytes | bytearray]:
        """Send one request and wait for its answer; raises a `ServingError` where there is none."""
        ...


class Sender:
    """A step of the run; several threads send."""

    def __init__(
        self,
        connect: Callable[[], Client],
        accept: str,
        timeout_s: float,
        check: Callable[[], None],
        ended: threading.Event,
        patience_s: float = PATIENCE_S,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """Remember where to; each thread connects with its first picture.

        Args:
            connect: Makes a thread's connection to the engine.
            accept: What is asked for.
            timeout_s: Of a request.
            check: Raises where the container is gone for good.
            ended: The run is over: nothing is tried again.
            patience_s: For how long a picture may be refused; then it has failed, or the run where no other was answered.
            pause_s: After how long what was refused is sent again.
        """
        self._connect, self._accept, self._timeout_s = connect, accept, timeout_s
        self._check, self._ended, self._patience_s, self._pause_s = check, ended, patience_s, pause_s
        self._answered = time.monotonic()
        self._threads = threading.local()
        self._numbers = itertools.count()

    def __call__(self, picture: Picture) -> Answered:
        """Send a picture until it is answered.

        Raises:
            PictureError: It cannot be.
            BenchError: Nothing is answered any more.
        """
        unlucky = 0
        refused_since: float | None = None
        while True:
            try:
                return self._send(picture)
            except Unavailable as error:
                self._check()
                now = time.monotonic()
                refused_since = refused_since or now
                if now - refused_since > self._patience_s:
                    if self._answered > refused_since:
                        raise PictureError(f"{error.status}: {error}") from None  # others are answered: it is this one
                    raise BenchError(f"nothing was answered for {self._patience_s:g} s: {error}") from None
                if self._ended.wait(self._pause_s):
                    raise
            except (DeadlineExceeded, WorkerDied) as error:
                unlucky += 1
                if unlucky == _UNLUCKY_AT_MOST or self._ended.is_set():
                    raise PictureError(f"{error.status}: {error}") from None

    def _send(self, picture: Picture) -> Answered:
        now = time.monotonic()
        name = f"images-{next(self._numbers)}"
        invocation = Invocation(name, picture.content_type, self._accept, {}, now, now + self._timeout_s)
        answer, received = self._client().invoke(invocation, picture.body)
        body = bytes(received)  # it may lie where the next one's is written
        code, message = ("", "") if answer.status == 200 else _error(body)
        if code in _REFUSED:
            raise Unavailable(message)
        self._answered = time.monotonic()
        if code in _UNLUCKY:
            raise _UNLUCKY[code](message)
        if answer.status != 200:
            raise PictureError(f"{answer.status}: {message}")
        return Answered(picture.name, body, answer.content_type, *times_ms(answer.attributes))

    def _client(self) -> Client:
        client: Client | None = getattr(self._threads, "client", None)
        if client is None:
            client = self._threads.client = self._connect()
        return client


def times_ms(attributes: Mapping[str, str]) -> tuple[float | None, float | None]:
    """How long the transformation and the model took, of an answer's attributes; None for what they do not say."""
    transformation = attributes.get(_PREPROCESS)
    inference = [float(value) for name, value in attributes.items() if _INFERENCE.fullmatch(name)]
    return None if transformation is None else float(transformation), sum(inference) if inference else None


def _error(body: bytes) -> tuple[str, str]:
    """The code and the one line that an error's body has."""
    try:
        content = json.loads(body)
        return str(content["error"]), str(content["message"])
    except (ValueError, TypeError, KeyError):
        return "", ServingError.default_message
