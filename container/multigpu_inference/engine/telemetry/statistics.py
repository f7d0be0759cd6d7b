"""What has been counted since the start: requests, refusals, hops, batches. Plain numbers, added to as requests end.

Belongs to the engine's loop, which sees every request, so there is one count of everything and nothing to lock.
"""

from __future__ import annotations

from multigpu_inference.engine.telemetry.finished_request import FinishedRequest, hop_label
from multigpu_inference.engine.telemetry.histogram import BATCH_SIZES, SECONDS, Histogram
from multigpu_inference.errors import Draining, Exhausted, KnownUnprocessable, Overloaded, Unavailable

# Requests for which there was no place, memory or descriptor, in the engine or the front end, or that are known to kill.
REFUSALS = frozenset({Overloaded.code, Draining.code, Unavailable.code, Exhausted.code, KnownUnprocessable.code})
ENGINE, FRONT_END = "engine", "front_end"
# All of a request's time that no hop accounts for.
QUEUE = "queue"
# More hops than a script has stages: names come from a process that runs user code, and each costs memory for good.
_MOST_HOPS = 64
_OTHER = "other"


class Statistics:
    """Counts.

    Attributes:
        requests: By status and error code ("" where answered as asked), those included that the front end refused.
        refusals: By error code and who refused, `engine` or `front_end`.
        spared: Requests that were dropped since nobody waited for them any more, by error code and what was not begun because
            of it: `admission`, a function, or a stage.
        request_seconds: From arrival to answer; of requests that came to the engine.
        hops: Seconds per request by hop, `queue` among them.
        batches: Items per batch by hop; a batch counts once however many requests share it.
        replica_requests: Requests by the replica that ran them.
        stage_seconds: Seconds of work by replica and hop; a batch counts once.
        bytes_in: Bytes of bodies received.
        bytes_out: Bytes of answers' bodies.
    """

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.requests: dict[tuple[int, str], int] = {}
        self.refusals: dict[tuple[str, str], int] = {}
        self.spared: dict[tuple[str, str], int] = {}
        self.request_seconds = Histogram(SECONDS)
        self.hops: dict[str, Histogram] = {QUEUE: Histogram(SECONDS)}
        self.batches: dict[str, Histogram] = {}
        self.replica_requests: dict[str, int] = {}
        self.stage_seconds: dict[tuple[str, str], float] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self._queue = self.hops[QUEUE]
        self._by_name: dict[str, Histogram] = {}

    def finished(self, request: FinishedRequest) -> None:
        """Count an answered request; its batches are counted by `batch`."""
        error = request.error or ""
        key = (request.status, error)
        self.requests[key] = self.requests.get(key, 0) + 1
        if error in REFUSALS:
            self._refused(error, ENGINE)
        unaccounted = seconds = request.ended - request.invocation.arrived
        self.request_seconds.add(seconds)
        by_name = self._by_name
        for name, began, ended, _ in request.spans:
            seconds = ended - began
            unaccounted -= seconds
            (by_name.get(name) or self._hop(name)).add(seconds)
        self._queue.add(max(0.0, unaccounted))
        if request.replica:
            self.replica_requests[request.replica] = self.replica_requests.get(request.replica, 0) + 1
        self.bytes_in += request.bytes_in
        self.bytes_out += request.bytes_out

    def batch(self, replica: str, name: str, seconds: float, items: int) -> None:
        """Count a batch that a stage has worked on."""
        hop = hop_label(name)
        if hop not in self.batches:
            self.batches[hop] = Histogram(BATCH_SIZES)
        self.batches[hop].add(items)
        self.stage_seconds[replica, hop] = self.stage_seconds.get((replica, hop), 0.0) + seconds

    def refused(self, status: int, code: str, count: int = 1) -> None:
        """Count requests that the front end has refused by itself."""
        self.requests[status, code] = self.requests.get((status, code), 0) + count
        if code in REFUSALS:
            self._refused(code, FRONT_END, count)

    def spared_before(self, code: str, before: str) -> None:
        """Count a request that was dropped, once."""
        key = (code, before)
        if key not in self.spared and len(self.spared) >= _MOST_HOPS:  # such a name, too, comes from user code's process
            key = (code, _OTHER)
        self.spared[key] = self.spared.get(key, 0) + 1

    def seconds_of(self, hop: str) -> float:
        """All seconds of a hop, over all requests."""
        return self.hops[hop].total if hop in self.hops else 0.0

    @property
    def num_requests(self) -> int:
        """All requests."""
        return sum(self.requests.values())

    @property
    def num_server_errors(self) -> int:
        """Requests that were answered with a status of 500 or more."""
        return sum(count for (status, _), count in self.requests.items() if status >= 500)

    @property
    def num_refusals(self) -> int:
        """Requests that were refused for want of room, by the engine or the front end."""
        return sum(count for (code, _), count in self.refusals.items() if code != KnownUnprocessable.code)

    def _refused(self, code: str, by: str, count: int = 1) -> None:
        self.refusals[code, by] = self.refusals.get((code, by), 0) + count

    def _hop(self, name: str) -> Histogram:
        label = hop_label(name) if len(self._by_name) < _MOST_HOPS else _OTHER
        histogram = self.hops.setdefault(label, Histogram(SECONDS))
        if len(self._by_name) < _MOST_HOPS:
            self._by_name[name] = histogram
        return histogram
