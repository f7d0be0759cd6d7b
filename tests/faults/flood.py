"""Requests that fall due at a rate, whatever becomes of the earlier ones."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

from bench.connections import HttpConnection
from integration.endpoint import Endpoint

_CONNECTIONS = 48


@dataclass(frozen=True)
class Answered:
    """One answer: from when its request was due to when it came, in seconds of the monotonic clock."""

    due: float
    came: float
    status: int
    content: dict[str, Any]

    @property
    def seconds(self) -> float:
        return self.came - self.due


def flood(endpoint: Endpoint, commands: dict[str, Any], rate: float, count: int) -> list[Answered]:
    """Send so many requests, so many a second, and wait for the last answer."""
    body, lock, answers = json.dumps(commands).encode(), threading.Lock(), list[Answered]()
    numbers, began = iter(range(count)), time.monotonic()

    def send_in_turn() -> None:
        connection = HttpConnection(f"{endpoint.url}/invocations", "application/json", "application/json", 30)
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                due = began + number / rate
                time.sleep(max(0.0, due - time.monotonic()))
                status, answer = connection.send(body)
                answers.append(Answered(due, time.monotonic(), status, json.loads(answer)))
        finally:
            connection.close()

    threads = [threading.Thread(target=send_in_turn) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
