"""The load generator: a process of its own that keeps requests in flight and measures each.

    python -m bench.load PLAN.json

Closed loop: so many connections, each sends its next request when it has its answer. Open loop: requests fall due at a
rate, whether or not earlier ones have been answered; the next free connection takes what is due, and latency counts from
when it was due. A thread per connection, because the engine's client waits; their CPU time is stated with the result.

Prints two lines of JSON: `{"measuring": …}` when the warm-up is over, and the outcome. Returns only when every request
has been answered, because multi-model-server goes on working on abandoned ones, which would be the next point's load.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.answers import Answers
from bench.connections import Connection, connect

# A refused request is tried again after this long, so that refusals do not become a load of their own.
_PAUSE_AFTER_ERROR_S = 0.05
_STACK_BYTES = 512 << 10
# What a server says that has more than it can do.
REFUSALS = ("429", "503")


@dataclass(frozen=True)
class LoadPlan:
    """What to send, and where.

    Attributes:
        target: An HTTP address, or the path of the engine's socket.
        content_type: Of the bodies.
        accept: What is asked for.
        inputs: Files with the bodies.
        expected: Files with the right answers, as many.
        exact: How strictly answers are compared.
        concurrency: Connections.
        seconds: How long is measured.
        warmup_s: How long before that.
        rate: Requests per second of an open loop; None: a closed loop.
        requests_each: After how many requests a connection stops; None: when the time is over.
        timeout_s: Of a request.
    """

    target: str
    content_type: str
    accept: str
    inputs: list[str]
    expected: list[str]
    exact: bool
    concurrency: int
    seconds: float
    warmup_s: float = 0.0
    rate: float | None = None
    requests_each: int | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True)
class LoadOutcome:
    """What came of it: everything about requests whose answer came while it was measured.

    Attributes:
        seconds: How long was measured.
        latencies_ms: Of the right answers.
        errors: What else came, counted: by status, `wrong answer`, or the name of the error of a broken connection.
        client_cpu_s: CPU time of the load generator meanwhile.
        started: When measuring began, monotonic seconds.
        refusals_ms: Latencies of answers with a status of 429 or 503.
    """

    seconds: float
    latencies_ms: list[float]
    errors: dict[str, int]
    client_cpu_s: float
    started: float = 0.0
    refusals_ms: list[float] = field(default_factory=list)


@dataclass
class Ledger:
    """Books each answer once, under its time; several threads write."""

    latencies_ms: list[float] = field(default_factory=list)
    refusals_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    begins: float = 0.0
    ends: float = float("inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def book(self, due: float, done: float, error: str | None) -> None:
        """Book a request; one that was answered outside the measured time counts for nothing."""
        if not self.begins <= done < self.ends:
            return
        with self._lock:
            if error is None:
                self.latencies_ms.append((done - due) * 1e3)
            else:
                self.errors[error] += 1
                if error in REFUSALS:
                    self.refusals_ms.append((done - due) * 1e3)


class Turns:
    """When each request is due, and with which input; several threads ask."""

    def __init__(self, begins: float, ends: float, rate: float | None, count: int | None) -> None:
        """Turns from `begins` to `ends`.

        Args:
            begins: Monotonic seconds.
            ends: No request falls due later.
            rate: Per second; None: as soon as it is asked for.
            count: How many in all; None: as many as there is time for.
        """
        self._begins, self._ends, self._rate, self._count = begins, ends, rate, count
        self._next = 0
        self._lock = threading.Lock()

    def take(self, now: float) -> tuple[int, float] | None:
        """The next request's number and when it is due; None where there is none left."""
        with self._lock:
            due = now if self._rate is None else self._begins + self._next / self._rate
            if due >= self._ends or (self._count is not None and self._next >= self._count):
                return None
            self._next += 1
            return self._next - 1, due


def run(plan: LoadPlan, connections: list[Connection] | None = None) -> LoadOutcome:
    """Send, measure, and wait for the last answer."""
    bodies = [Path(name).read_bytes() for name in plan.inputs]
    answers = Answers([Path(name).read_bytes() for name in plan.expected], exact=plan.exact)
    if connections is None:
        connections = [connect(plan.target, plan.content_type, plan.accept, plan.timeout_s) for _ in range(plan.concurrency)]
    begins = time.monotonic()
    ledger = Ledger(begins=begins + plan.warmup_s)
    count = None if plan.requests_each is None else plan.requests_each * plan.concurrency
    if plan.requests_each is None:
        ledger.ends = ledger.begins + plan.seconds
    turns = Turns(begins, ledger.ends, plan.rate, count)
    threading.stack_size(_STACK_BYTES)
    threads = [
        threading.Thread(target=_send_in_turn, args=(each, turns, bodies, answers, ledger), daemon=True) for each in connections
    ]
    for thread in threads:
        thread.start()
    _sleep_until(ledger.begins)
    cpu_s = time.process_time()
    print(json.dumps({"measuring": ledger.begins}), flush=True)
    if plan.requests_each is None:
        _sleep_until(ledger.ends)
        ended = ledger.ends
        cpu_s = time.process_time() - cpu_s
        print(json.dumps({"measured": ended}), flush=True)
    for thread in threads:
        thread.join()
    if plan.requests_each is not None:
        ended = time.monotonic()
        cpu_s = time.process_time() - cpu_s
        print(json.dumps({"measured": ended}), flush=True)
    for each in connections:
        each.close()
    seconds = ended - ledger.begins
    return LoadOutcome(seconds, ledger.latencies_ms, dict(ledger.errors), cpu_s, ledger.begins, ledger.refusals_ms)


def _send_in_turn(connection: Connection, turns: Turns, bodies: list[bytes], answers: Answers, ledger: Ledger) -> None:
    while (turn := turns.take(time.monotonic())) is not None:
        number, due = turn
        _sleep_until(due)
        error = _send(connection, number % len(bodies), bodies, answers)
        ledger.book(due, time.monotonic(), error)
        if error is not None:
            time.sleep(_PAUSE_AFTER_ERROR_S)


def _send(connection: Connection, number: int, bodies: list[bytes], answers: Answers) -> str | None:
    """Send one request; what was wrong with its answer, None where it was right."""
    try:
        status, body = connection.send(bodies[number])
    except Exception as error:  # whatever a client library raises costs one request, not the run
        return type(error).__name__
    if status != 200:
        return str(status)
    return None if answers.right(number, body) else "wrong answer"


def _sleep_until(moment: float) -> None:
    left = moment - time.monotonic()
    if left > 0:
        time.sleep(left)


def main(arguments: list[str]) -> int:
    """Carry out the plan in a file."""
    given: dict[str, Any] = json.loads(Path(arguments[0]).read_text())
    print(json.dumps(dataclasses.asdict(run(LoadPlan(**given)))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
