"""Kills a random process of a container each second, while requests come at half of what it can answer, and counts them all.

    load, closed loop ──► what it can answer ──► half of that, open loop, for so many seconds
                                                      └─ meanwhile: kill -9, each second another one

Every request has an answer of its own, over a connection of its own that is read to its end: what is lost, wrong, refused in
words that nobody has foreseen, or answered twice, is seen.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from integration.endpoint import Endpoint
from multigpu_inference.config import MMS

CLIENTS = 16
_TIMEOUT_S = 60.0
_CAPACITY_S = 2.0
JSON, BINARY = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        number: Of the request.
        status: HTTP's; 0 where the connection ended without an answer.
        verdict: `right`, `wrong`, `refused` (one line of ours), `lost` (no answer), `theirs` (an answer of
            multi-model-server's own), `twice`.
        seconds: From when it was due to the end of its answer.
    """

    number: int
    status: int
    verdict: str
    seconds: float


def content(number: int) -> tuple[bytes, str]:
    """A request's body, which no other has, and its type: every third goes through the fetch process."""
    chance = random.Random(number)
    if number % 3 == 0:
        return json.dumps({"number": number, "text": "x" * chance.randrange(1000)}).encode(), JSON
    return number.to_bytes(8, "big") + chance.randbytes(chance.choice([10, 1000, 100_000])), BINARY


def ask(endpoint: Endpoint, number: int, due: float) -> Outcome:
    """Send one request, and judge its answer."""
    body, content_type = content(number)
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    status, verdict = 0, "lost"
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        socket.create_connection(("127.0.0.1", endpoint.port), _TIMEOUT_S) as connection,
    ):
        connection.sendall(head.encode() + body)
        with contextlib.closing(http.client.HTTPResponse(connection)) as answer:
            answer.begin()
            text = answer.read()
        status, verdict = answer.status, judge(answer.status, text, body)
        connection.settimeout(0.001)
        with contextlib.suppress(OSError):
            verdict = "twice" if connection.recv(1) else verdict
    return Outcome(number, status, verdict, time.monotonic() - due)


def judge(status: int, text: bytes, body: bytes) -> str:
    """What an answer is worth; see `Outcome`."""
    if status == 200:
        return "right" if json.loads(text) == {"sha256": hashlib.sha256(body).hexdigest()} else "wrong"
    with contextlib.suppress(ValueError):
        said = json.loads(text)
        if {"error", "message", "request_id"} <= set(said) and text.count(b"\n") == 1:
            return "refused"
        if said.get("code") == status:
            return "theirs"
    return "wrong"


def capacity(endpoint: Endpoint) -> float:
    """Requests a second that are answered where there are always some waiting."""
    until = time.monotonic() + _CAPACITY_S

    def client(first: int) -> int:
        answered = 0
        while time.monotonic() < until:
            answered += ask(endpoint, first + answered * CLIENTS, time.monotonic()).verdict == "right"
        return answered

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        return sum(threads.map(client, range(6))) / _CAPACITY_S


def victims(endpoint: Endpoint) -> list[str]:
    """What may be killed without an end of the container: words of command lines."""
    workers = ["engine.pool_worker", "engine.replica_worker", "engine.fetch_worker"]
    return [*workers, "model_service_worker"] if endpoint.environment["MULTIGPU_FRONT_END"] == MMS else workers


class Killer:
    """Kills one process a second until it is stopped."""

    def __init__(self, endpoint: Endpoint, seed: int) -> None:
        self.killed = Counter[str]()
        self._endpoint = endpoint
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1):
            kind = self._chance.choice(victims(self._endpoint))
            processes = self._endpoint.processes(kind)
            ids = {process.pid for process in processes}
            if kind == "model_service_worker":  # not the parent that they are forks of: that one ends the container
                processes = [process for process in processes if process.ppid() in ids]
            if processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._chance.choice(processes).pid, signal.SIGKILL)
                    self.killed[kind] += 1


def offer(endpoint: Endpoint, rate: float, seconds: float, first: int) -> list[Outcome]:
    """Requests at a rate, whether or not earlier ones have been answered."""
    started = time.monotonic()

    def one(number: int) -> Outcome:
        due = started + (number - first) / rate
        time.sleep(max(0.0, due - time.monotonic()))
        return ask(endpoint, number, due)

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        return list(threads.map(one, range(first, first + int(rate * seconds))))


def counted(outcomes: Sequence[Outcome]) -> Counter[str]:
    """How many there are of each: `right`, or status and verdict."""
    return Counter(each.verdict if each.verdict == "right" else f"{each.status} {each.verdict}" for each in outcomes)
