"""`invoke_endpoint_async` on this machine: requests wait in a queue, their answers become files.

The request is taken with 202 and the place where its answer will be; a few threads send what waits to the container. For each
request exactly one file comes: the answer, or what went wrong. SNS topics are not told.
"""

from __future__ import annotations

import json
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from runtime_container import invoke_container
from runtime_fault import ModelFault, QueueFault, ValidationFault

MAX_INLINE_BYTES = 128_000
_MAX_WAITING = 1000
_MAX_ANSWER_BYTES = 1 << 30
_PREFIX = "X-Amzn-SageMaker-"
_FILE_NAME = re.compile(r"(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9_.-]{0,31}")
_EXTENSION = re.compile(r"[a-zA-Z0-9!_.*'()/-]{1,512}")
# SageMaker's defaults and limits: how long a request may wait, and how long it may be worked on.
_WAIT_S = (21_600, 60, 21_600)
_WORK_S = (900, 1, 3600)
# For answers that are under way when the proxy stops; the container has been stopped before.
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class AsyncRequest:
    """A request that waits.

    Attributes:
        inference_id: The caller's, or one made here.
        body: Sent with the request; None: it lies at `location`.
        location: file:// or s3://.
        headers: For the container.
        output: The file that its answer becomes.
        failure: The file that an error becomes.
        expires: Monotonic seconds; work on it begins before that, or never.
        limit_s: For the container to answer.
    """

    inference_id: str
    body: bytes | None
    location: str
    headers: Mapping[str, str]
    output: Path
    failure: Path
    expires: float
    limit_s: float


class AsyncInvocations:
    """The queue and the threads that empty it."""

    def __init__(
        self, port: int, folder: Path, concurrency: int = 4, log: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is started yet.

        Args:
            port: Where the container listens.
            folder: Takes the answers.
            concurrency: Requests in flight.
            log: Where the container's log is, for errors.
            clock: Seconds that only grow.
        """
        self._clock = clock
        self._port = port
        self._folder = folder.resolve()
        self._log = log
        self._waiting: queue.Queue[AsyncRequest | None] = queue.Queue(_MAX_WAITING)
        self._threads = [threading.Thread(target=self._work, name=f"async-{n}", daemon=True) for n in range(concurrency)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Fail what waits; what is under way has some seconds."""
        while True:
            try:
                request = self._waiting.get_nowait()
            except queue.Empty:
                break
            if request is not None:
                self._fail(request, ModelFault(0, "the local endpoint has been stopped", self._log))
        for _ in self._threads:
            self._waiting.put(None)
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def submit(self, headers: Message, forwarded: Mapping[str, str], body: bytes) -> AsyncRequest:
        """Take a request.

        Args:
            headers: Of the caller.
            forwarded: For the container.
            body: Sent along; empty: it lies where `InputLocation` says.

        Raises:
            ValidationFault: where it cannot be meant.
            QueueFault: where too many wait.
        """
        location = headers.get(f"{_PREFIX}InputLocation", "")
        if bool(location) == bool(body):
            raise ValidationFault("give either InputLocation or Body")
        if location and urlsplit(location).scheme not in ("file", "s3"):
            raise ValidationFault(f"InputLocation {location!r}: allowed here is file:///path or s3://bucket/key")
        key = str(uuid.uuid4())
        name = headers.get(f"{_PREFIX}Filename", "") or f"{key}.out"
        if not _FILE_NAME.fullmatch(name) and name != f"{key}.out":
            raise ValidationFault(f"Filename {name!r}: allowed are 1 to 32 letters, digits, - and _, and one dot")
        folder = self._folder / _extension(headers.get(f"{_PREFIX}S3OutputPathExtension", ""))
        request = AsyncRequest(
            inference_id=headers.get(f"{_PREFIX}Inference-Id", "") or str(uuid.uuid4()),
            body=body or None,
            location=location,
            headers=forwarded,
            output=folder / name,
            failure=self._folder / "failures" / f"{key}-error.out",
            expires=self._clock() + _seconds(headers, "RequestTTLSeconds", _WAIT_S),
            limit_s=_seconds(headers, "InvocationTimeoutSeconds", _WORK_S),
        )
        try:
            self._waiting.put_nowait(request)
        except queue.Full:
            raise QueueFault(f"{_MAX_WAITING} asynchronous requests wait already: try again later") from None
        return request

    def _work(self) -> None:
        while (request := self._waiting.get()) is not None:
            try:
                self._answer(request)
            except ModelFault as fault:
                self._fail(request, fault)
            except (OSError, BotoCoreError, ClientError) as error:
                self._fail(request, ModelFault(0, f"{request.location or request.output}: {error}", self._log))

    def _answer(self, request: AsyncRequest) -> None:
        if self._clock() > request.expires:
            raise ModelFault(0, "the request has waited for longer than RequestTTLSeconds", self._log)
        body = read_location(request.location) if request.body is None else request.body
        with invoke_container(self._port, body, request.headers, request.limit_s, request.limit_s, self._log) as answer:
            _write(request.output, answer.body(_MAX_ANSWER_BYTES))

    def _fail(self, request: AsyncRequest, fault: ModelFault) -> None:
        _write(request.failure, json.dumps({"InferenceId": request.inference_id, **fault.fields()}).encode())


def read_location(location: str) -> bytes:
    """What lies at file:///path or s3://bucket/key; S3 as boto3 finds it, so where `AWS_ENDPOINT_URL_S3` says.

    Raises:
        OSError: for a file.
        BotoCoreError, ClientError: for an object.
    """
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).read_bytes()
    found: bytes = boto3.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
    return found


def _extension(text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    if text and (not _EXTENSION.fullmatch(text) or path.is_absolute() or ".." in path.parts):
        raise ValidationFault(f"S3OutputPathExtension {text!r}: allowed is a relative path")
    return path


def _seconds(headers: Message, name: str, limits: tuple[int, int, int]) -> int:
    default, low, high = limits
    text = headers.get(f"{_PREFIX}{name}", "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise ValidationFault(f"{name} {text!r}: allowed is a whole number from {low} to {high}")
    return int(text) if text else default


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all: whoever waits for the file must never read half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    part.write_bytes(content)
    os.replace(part, path)
