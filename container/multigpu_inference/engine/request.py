"""One request on its way through the engine."""

from __future__ import annotations

import time

from multigpu_inference.engine.function_places import FunctionPlaces
from multigpu_inference.engine.process_pool import ProcessPool
from multigpu_inference.engine.replica import Replicas, replica_id
from multigpu_inference.engine.worker_process import Reply
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import Invocation, Task


class Request:
    """A request, what has been measured of it, and its answer once there is one."""

    def __init__(self, invocation: Invocation, body: Blob) -> None:
        """Take a request as it came from the front end."""
        self.invocation = invocation
        self.body = body
        self.content_type = ""
        self.replica = ""
        self.milliseconds: dict[str, float] = {}

    async def run(self, pool: ProcessPool, replicas: Replicas, places: FunctionPlaces) -> bytes:
        """Take the request from its body to its answer's; `ServingError` where it cannot be answered."""
        blobs: list[bytes] = [bytes(self.body)]
        if places.before:
            blobs = self.note(await pool.run(self.task(places.before), blobs))
        blobs = self.note(await replicas.run(self.task(places.on_replica, places), blobs))
        if places.after:
            blobs = self.note(await pool.run(self.task(places.after), blobs, urgent=True))
        return blobs[0]

    def task(self, steps: tuple[str, ...], places: FunctionPlaces | None = None, *, trial: bool = False) -> Task:
        """A task for a worker (which numbers it), for a replica with the places of the tensors that belong on its device."""
        if places is None:
            return Task(0, steps, self.invocation, trial=trial)
        return Task(0, steps, self.invocation, places.device_paths, places.tensor_paths)

    def note(self, reply: Reply) -> list[bytes]:
        """Keep what a worker's answer says beside its blobs; the blobs."""
        self.milliseconds |= reply.result.milliseconds
        self.content_type = reply.result.content_type or self.content_type
        if reply.worker.startswith("replica"):
            self.replica = replica_id(reply.worker)
        return reply.blobs

    def measured(self) -> dict[str, str | float]:
        """Replica and milliseconds per hop, in the order of the hops; queue is all time that no hop accounts for."""
        total = (time.monotonic() - self.invocation.arrived) * 1e3
        queue = max(0.0, total - sum(self.milliseconds.values()))
        hops = {name: round(value, 1) for name, value in {"queue_ms": queue, **self.milliseconds}.items()}
        return {"replica": self.replica, **hops} if self.replica else {**hops}
