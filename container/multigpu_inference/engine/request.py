"""One request on its way through the engine."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

from multigpu_inference import log
from multigpu_inference.arena import end_of
from multigpu_inference.engine.function_places import FunctionPlaces
from multigpu_inference.engine.poison_list import PoisonList
from multigpu_inference.engine.replica import replica_id
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.worker_group import WorkerGroup
from multigpu_inference.engine.worker_process import Place, Reply
from multigpu_inference.errors import OutOfMemory, Unavailable, Unprocessable, WorkerDied, WorkerKilled
from multigpu_inference.ipc import Blob, Buffer, Slice
from multigpu_inference.messages import FETCH_FN, INPUT_FN, STORE_FN, FetchedItem, Invocation, Task

# Deaths from outside after which a request is tried again: that many in a row are no accident, and it is told to come later.
_TRIES_AFTER_KILLS = 3
_CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"

Spans: TypeAlias = tuple[tuple[str, float, float, int], ...]


class FetchedInput(NamedTuple):
    """One input that `fetch_fn` gave, its bytes in the arena of the request that it came with.

    Attributes:
        item: What the fetch worker says of it.
        data: What `input_fn` is given in the body's place, encoded; nothing where it cannot be read.
        store: What `store_fn` is given; nothing where the answer is not stored.
    """

    item: FetchedItem
    data: list[Blob]
    store: list[Blob]


class Request:
    """A request, what has been measured of it, and its answer once there is one.

    Attributes:
        source: What `input_fn` is given: the body, or the blobs of what `fetch_fn` gave in its place.
        alone: Whether it is tried once more and must share no worker with others, because one died with it.
        items: Of a bulk request: how many there are.
        attributes: What has been measured of it, once it has ended.
    """

    def __init__(self, invocation: Invocation, body: Blob, arena: RequestArena, spans: Spans = ()) -> None:
        """Take a request as it came from the front end, or one item of it with what has been measured before."""
        self.invocation = invocation
        self.body = body
        self.arena = arena
        self.alone = False
        self.items: int | None = None
        self.attributes: dict[str, str | float] = {}
        self.used = end_of([body])  # of the arena, in bytes; the most that it ever used
        self.source = [body]
        self._fetched = 0
        self._task: Task | None = None  # the last one
        self._fetch_deaths = 0
        self._store: list[Blob] = []
        self._spans_before = spans
        self.begin()

    @property
    def waits_for(self) -> str:
        """What comes next, as long as nobody works on it: `admission`, or a function that waits for a worker; else ""."""
        if self._task is None:
            return "admission"
        return self._task.steps[0] if self._task.slot < 0 else ""

    @property
    def is_fetched(self) -> bool:
        """Whether it has been through `fetch_fn`."""
        return self._fetched > 0

    def begin(self) -> None:
        """Begin at its source, for the first time or once more: the only bytes that no user code can have changed."""
        self.content_type = ""
        self.replica = ""
        self.spans = self._spans_before

    async def answered(self, attempt: Callable[[], Awaitable[Blob]], poison: PoisonList) -> Blob:
        """Answer it; where its worker ended meanwhile, again from its beginning.

        A death that may have been its doing lets it be tried once more, in a worker that it shares with nobody: so nobody else
        pays for what it does. The second such death is its own, and its content is remembered. A death from outside counts
        against nobody, and lets it be tried again as it was, a few times. What ran out of memory is tried once more, too.

        Args:
            attempt: Takes it from its source to its answer.
            poison: Remembers it where it kills.

        Raises:
            Unprocessable: where a second worker ended by it.
            OutOfMemory: where it ran out of memory a second time.
            Unavailable: where one worker after another was ended from outside.
        """
        from_outside, died, ran_out = 0, False, False
        while True:
            because = "its worker ended"
            try:
                return await attempt()
            except OutOfMemory:
                if ran_out:
                    raise
                ran_out = self.alone = True
                because = "it ran out of memory"
            except WorkerKilled:
                from_outside += 1
                if from_outside > _TRIES_AFTER_KILLS:
                    raise Unavailable("the processes that worked on the request were ended") from None
            except WorkerDied:
                if died:
                    await poison.remember(self.invocation.content_type, self.source, self._read_given)
                    raise Unprocessable from None
                died = self.alone = True
            log.event("request_tried_again", request_id=self.invocation.request_id, alone=self.alone, because=because)
            self.begin()

    async def is_known(self, poison: PoisonList) -> bool:
        """Whether the same content has killed before."""
        return await poison.knows(self.invocation.content_type, self.source, self._read_given)

    def _read_given(self) -> list[Buffer]:
        """What a script is given: the bytes of its source, where they are, without a copy; and the options beside them.

        Of the headers only the one that is a client's word to the script: others differ each time that the same is sent.
        """
        given, invocation = [self.arena.memory.array(b) if isinstance(b, Slice) else b for b in self.source], self.invocation
        options = [invocation.accept, invocation.headers.get(_CUSTOM_ATTRIBUTES), sorted(invocation.form.items())]
        return [*given, json.dumps(options).encode()]

    async def fetch(self, fetcher: WorkerGroup, place: Place | None = None) -> tuple[list[FetchedInput], bool]:
        """Run `fetch_fn`: what it gave, and whether that is to be answered as a list.

        Args:
            fetcher: Runs it.
            place: Lent to the worker until it has answered.
        """
        reply = await self._shared(self.reply(fetcher, Task(0, (FETCH_FN,), self.invocation), [self.body], place=place))
        blobs, result = iter(self.note(reply)), reply.result.fetched
        assert result is not None  # a fetch worker's answer always has one
        items = [FetchedInput(i, list(islice(blobs, i.data)), list(islice(blobs, i.store))) for i in result.items]
        return items, result.bulk

    def take(self, data: list[Blob], store: list[Blob]) -> None:
        """Go on with what has been fetched: for `input_fn` in the body's place, and for `store_fn`."""
        self.source, self._fetched, self._store = data, len(data), store
        self._spans_before = self.spans
        self.used = max(self.used, end_of(data), end_of(store))

    async def store(self, fetcher: WorkerGroup, answer: Blob) -> Blob:
        """Run `store_fn` on an answer, where it is to be stored: what the client gets."""
        if not self._store:
            return answer
        task = Task(0, (STORE_FN,), self.invocation, content_type=self.content_type)
        return self.note(await self._shared(self.reply(fetcher, task, [answer, *self._store], urgent=True)))[0]

    async def _shared(self, reply: Awaitable[Reply]) -> Reply:
        """A reply of the process that has others' requests too: where it died, nothing says whose fault that was."""
        try:
            return await reply
        except WorkerDied:
            self._fetch_deaths += 1
            if self._fetch_deaths > 1:
                raise Unavailable from None
            raise WorkerKilled from None

    async def run(self, pool: WorkerGroup, replicas: WorkerGroup, places: FunctionPlaces) -> Blob:
        """Take the request from its body to its answer's; `ServingError` where it cannot be answered."""
        steps, blobs = places.steps, self.source
        if steps.before:
            blobs = await self.step(pool, self.task(steps.before), blobs)
        blobs = await self.step(replicas, self.task(steps.on_replica, places), blobs)
        if steps.after:
            blobs = await self.step(pool, self.task(steps.after), blobs, urgent=True)
        places.note(self.spans)
        return blobs[0]

    def task(self, steps: tuple[str, ...], places: FunctionPlaces | None = None, *, trial: bool = False) -> Task:
        """A task for a worker (which numbers it), for a replica with the places of the tensors that belong on its device."""
        fetched = self._fetched if steps[0] == INPUT_FN else 0
        if places is None:
            return Task(0, steps, self.invocation, fetched=fetched, trial=trial)
        return Task(0, steps, self.invocation, places.device_paths, places.tensor_paths, fetched)

    async def step(self, workers: WorkerGroup, task: Task, blobs: Sequence[Blob], *, urgent: bool = False) -> list[Blob]:
        """Run a task, and keep what its answer says beside its blobs; the blobs."""
        return self.note(await self.reply(workers, task, blobs, urgent=urgent))

    async def reply(
        self, workers: WorkerGroup, task: Task, blobs: Sequence[Blob], *, urgent: bool = False, place: Place | None = None
    ) -> Reply:
        """Run a task, which writes behind everything that stands in the arena."""
        task.arena_used = self.used
        self._task = task
        alone = self.alone and task.steps[0] not in (FETCH_FN, STORE_FN)  # there is but one fetch worker, and it has many
        return await workers.run(task, blobs, self.arena, urgent=urgent, alone=alone, place=place)

    def note(self, reply: Reply) -> list[Blob]:
        """Keep what a worker's answer says beside its blobs; the blobs."""
        self.used = max(self.used, end_of(reply.blobs))
        self.spans += reply.result.spans
        self.content_type = reply.result.content_type or self.content_type
        if reply.worker.startswith("replica"):
            self.replica = replica_id(reply.worker)
        return reply.blobs

    def measured(self) -> dict[str, str | float]:
        """Replica and milliseconds per hop, in the order of the hops; queue is all time that no hop accounts for."""
        hops: dict[str, float] = {}
        for name, started, ended, _ in self.spans:
            hops[name] = hops.get(name, 0.0) + (ended - started) * 1e3
        queue = max(0.0, (time.monotonic() - self.invocation.arrived) * 1e3 - sum(hops.values()))
        rounded = {name: round(value, 1) for name, value in {"queue_ms": queue, **hops}.items()}
        return {"replica": self.replica, **rounded} if self.replica else {**rounded}
