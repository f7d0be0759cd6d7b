"""What is so right now: how many requests are where, and which workers live. Made by the engine when it is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One slot of a worker group.

    Attributes:
        name: Such as `replica-0` or `pool-1`.
        pid: Its process; None while it is being replaced.
        in_flight: Tasks that it holds.
        oldest_task_s: When the oldest of them was sent, monotonic seconds; None where it holds none.
        restarts: How often it has been replaced.
        taken_out: Whether it lives and is given no requests but probes, because it is much slower than its peers.
    """

    name: str
    pid: int | None
    in_flight: int
    oldest_task_s: float | None
    restarts: int
    taken_out: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The engine at one moment.

    Attributes:
        health: `healthy`, `below_minimum` or `draining`.
        in_flight: Requests that have no answer yet, those included that wait to be admitted.
        waiting: Requests that wait to be admitted.
        oldest_waiting_since: When the first of those began to wait, monotonic seconds; None where none waits.
        oldest_request_since: When the oldest request without an answer arrived, monotonic seconds; None where all have
            one. What a device did after that moment may not be known yet, what it did before it is.
        max_in_flight: The most requests that are admitted at a time.
        max_queue_size: The most that wait to be admitted.
        replicas: The replica workers, by slot.
        pool: The pool workers, by slot.
        fetchers: The fetch worker, where the script has a `fetch_fn`.
        spares: Warm workers that wait to take a place.
        healthy_replicas: Replicas that can take requests.
    """

    health: str
    in_flight: int
    waiting: int
    oldest_waiting_since: float | None
    oldest_request_since: float | None
    max_in_flight: int
    max_queue_size: int
    replicas: tuple[WorkerState, ...]
    pool: tuple[WorkerState, ...]
    fetchers: tuple[WorkerState, ...]
    spares: int
    healthy_replicas: int

    @property
    def workers(self) -> tuple[WorkerState, ...]:
        """All of them."""
        return (*self.replicas, *self.pool, *self.fetchers)
