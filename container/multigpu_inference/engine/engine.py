"""The engine: brings everything up, answers requests, drains, stops. Rows 4 to 9 of a request's way are `Request.run`.

    start: probes ──► placement, capacity ──► pool and replicas, each replica warmed ──► functions placed with the sample
    answer: deadline ──► admission ──► fetch_fn ──► `Request.run` ──► store_fn ──► answer, log line
                                          └─ several inputs: each so, from there (`bulk`)

Every failure of a request becomes one line of JSON; every failure of the start one `StartupError`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable

from multigpu_inference import log
from multigpu_inference.arena import Arena
from multigpu_inference.child_process import Command, ask
from multigpu_inference.config import MMS, Settings
from multigpu_inference.engine.admission import Admission, FetchPlace
from multigpu_inference.engine.bulk import BulkRequests
from multigpu_inference.engine.capacity import Capacity, available_cores, plan_capacity
from multigpu_inference.engine.devices import DEVICE_ORDER, cpu_devices, cuda_devices, gpu_is_present
from multigpu_inference.engine.fetch_process import FetchProcess
from multigpu_inference.engine.function_places import FunctionPlaces
from multigpu_inference.engine.place_finder import PlaceFinder
from multigpu_inference.engine.placement import Devices, plan_placement
from multigpu_inference.engine.poison_list import PoisonList
from multigpu_inference.engine.process_pool import NO_GPU, ProcessPool
from multigpu_inference.engine.replica import Replicas
from multigpu_inference.engine.request import FetchedInput, Request
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.telemetry.exposition import CONTENT_TYPE
from multigpu_inference.engine.telemetry.finished_request import FinishedRequest
from multigpu_inference.engine.telemetry.snapshot import Snapshot
from multigpu_inference.engine.telemetry.telemetry import Telemetry
from multigpu_inference.engine.worker_group import WorkerGroup
from multigpu_inference.engine.worker_process import WorkerProcess
from multigpu_inference.errors import (
    ClientGone,
    DeadlineExceeded,
    Exhausted,
    KnownUnprocessable,
    ResponseTooLarge,
    ServingError,
    SettingsError,
    StartupError,
)
from multigpu_inference.ipc import Blob, size_of
from multigpu_inference.messages import (
    FETCH_FN,
    NO_WORKER_LEFT,
    STOCK_ACCEPT,
    STOCK_ORDER,
    TOO_FEW_REPLICAS,
    TRANSFORM_FN,
    Answer,
    Health,
    Invocation,
    Refusal,
    ScriptInfo,
)

# A task that is still running this long after the longest time that a request has is taken for a hang.
_HANG_GRACE_S = 5.0


class Engine:
    """Pool, replicas and the requests between them."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._script = ScriptInfo()
        self.placement: tuple[Devices, ...] = ()
        self.capacity: Capacity
        self._places: FunctionPlaces
        self._pool: ProcessPool
        self._fetcher: FetchProcess
        self._replicas: Replicas
        self._finder: PlaceFinder
        self._admission: Admission
        self._bulk: BulkRequests
        self._telemetry: Telemetry
        self._telling: asyncio.Task[None] | None = None
        self._poison = PoisonList()
        self._sample_fetched: list[bytes] = []  # what `input_fn` is given of the sample, where that is fetched
        self._arrived: dict[str, float] = {}  # of requests without an answer: when they came

    async def wait_lost(self) -> int:
        """Wait until too few workers of a kind are left, or have been left for too long; the process's exit code for that."""
        codes = {self._replicas: TOO_FEW_REPLICAS, self._pool: NO_WORKER_LEFT, self._fetcher: NO_WORKER_LEFT}
        waiting = {asyncio.create_task(group.lost.wait()): code for group, code in codes.items()}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return max(waiting[task] for task in done)

    async def start(self) -> None:
        """Bring everything up, every replica loaded and warmed; `StartupError` where that fails."""
        settings = self._settings.engine
        deadline = asyncio.get_running_loop().time() + settings.startup_timeout_s
        self._script, gpus = await self._probe(deadline)
        front_end = self._settings.front_end
        self.capacity = plan_capacity(settings, len(gpus), available_cores(), self._script.stages, front_end)
        devices = gpus or cpu_devices(self.capacity.num_replicas, self._script.stages)
        self.placement = plan_placement(devices, self._script.stages, self.capacity.num_replicas, settings.placement)
        if settings.min_replicas > self.capacity.num_replicas:
            raise SettingsError(
                f"MULTIGPU_MIN_REPLICAS='{settings.min_replicas}': there are {self.capacity.num_replicas} replicas"
            )
        self._admission = Admission(self.capacity.admitted, self.capacity.fetching, self.capacity.max_queue_size)
        self._bulk = BulkRequests(
            self._outcome,
            self._answer_fetched,
            self._poison,
            max(1, self.capacity.admitted // 2),
            self._settings.front_end.max_payload_bytes,
        )
        self._places = FunctionPlaces(settings.preprocess, self._script)
        hang_after_s = settings.request_timeout_s + _HANG_GRACE_S
        self._pool = ProcessPool(settings, self.capacity.pool_workers, hang_after_s)
        self._fetcher = FetchProcess(settings, self.capacity.fetching, hang_after_s)
        self._replicas = Replicas(settings, self.capacity, self.placement, hang_after_s, self._warm_up)
        self._finder = PlaceFinder(self._places, self._pool, self._replicas)
        self._telemetry = Telemetry(self._settings, self.placement, self.snapshot)
        for group in (self._pool, self._fetcher, self._replicas):
            group.on_spared = self._telemetry.spared
        self._log_plan()
        await self._start_workers()
        self._telling = asyncio.create_task(self._telemetry.run())

    async def answer(self, invocation: Invocation, body: Blob, arena: RequestArena) -> tuple[Answer, Blob]:
        """Answer one request, whatever happens to it, by its deadline.

        Args:
            invocation: The request.
            body: Its body, inline or in the arena.
            arena: Its own until the answer; then the front end's again, unless it is spoiled.
        """
        self._arrived[invocation.request_id] = invocation.arrived
        self._choose_accept(invocation)
        request = Request(invocation, body, arena)
        error, answer_body = await self._outcome(request, lambda: self._admit(request))
        del self._arrived[invocation.request_id]
        attributes = {name: str(value) for name, value in request.attributes.items()}
        status, retry_after_s = (error.status, error.retry_after_s) if error is not None else (200, None)
        content_type = request.content_type if error is None else "application/json"
        answer = Answer(invocation.request_id, status, content_type, attributes, retry_after_s, not arena.spoiled, request.used)
        return answer, answer_body

    async def _outcome(self, request: Request, run: Callable[[], Awaitable[Blob]]) -> tuple[ServingError | None, Blob]:
        """Run what answers a request, by its deadline: its answer's body, or an error and that one's; told to all who count."""
        invocation = request.invocation
        error: ServingError | None = None
        answer_body: Blob = b""
        try:
            async with asyncio.timeout_at(invocation.deadline):
                answer_body = await run()
                if size_of(answer_body) > self._settings.front_end.max_payload_bytes:
                    raise ResponseTooLarge
        except TimeoutError:
            error = DeadlineExceeded()
        except ServingError as failed:
            error = failed
        except asyncio.CancelledError:  # only ever because nobody waits for the answer any more
            error = ClientGone()
        except Exception as fault:  # a fault of ours must cost one request, not the connection
            log.exception("request_failed", fault, request_id=invocation.request_id)
            error = Exhausted() if isinstance(fault, OSError | MemoryError) else ServingError()
        if isinstance(error, DeadlineExceeded | ClientGone) and request.waits_for:
            self._telemetry.spared(error.code, request.waits_for)
        if error is not None:
            answer_body = error.body(invocation.request_id)
        self._tell(request, error, size_of(answer_body))
        return error, answer_body

    def _tell(self, request: Request, error: ServingError | None, bytes_out: int) -> None:
        """Tell the log and the metrics how a request ended."""
        invocation, ended = request.invocation, time.monotonic()
        request.attributes = request.measured()
        status, code = (200, None) if error is None else (error.status, error.code)
        bytes_in = size_of(request.body)
        if request.items is None:  # else each of its items has been counted as a request
            self._telemetry.finished(
                FinishedRequest(invocation, status, code, request.replica, request.spans, ended, bytes_in, bytes_out)
            )
        log.event(
            "request",
            request_id=invocation.request_id,
            inference_id=invocation.headers.get("x-amzn-sagemaker-inference-id"),
            status=status,
            error=code,
            reason=error and (error.detail or error.message),
            content_type=request.content_type if error is None else "application/json",
            items=request.items,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            total_ms=round((ended - invocation.arrived) * 1e3, 1),
            spans=request.spans if self._settings.engine.trace else None,
            **request.attributes,
        )

    async def _admit(self, request: Request) -> Blob:
        """Let a request in as soon as there is a place, and take it from its body to its answer's."""
        fetches = self._fetches(request.invocation)
        if not fetches:
            await self._refuse_known(request)
        async with self._admission.place(fetches=fetches, deadline=request.invocation.deadline) as place:
            return await request.answered(lambda: self._answer_body(request, place if fetches else None), self._poison)

    async def _answer_body(self, request: Request, place: FetchPlace | None) -> Blob:
        """Answer a request; where it has a place for that, by way of `fetch_fn`."""
        if place is not None and not request.is_fetched:
            items, bulk = await request.fetch(self._fetcher, place)
            if bulk:
                return await self._bulk.answer(request, items)
            self._take(request, items[0])
        return await self._answer_fetched(request)

    async def _answer_fetched(self, request: Request) -> Blob:
        """Answer a request that needs no fetching, or has been fetched."""
        await self._refuse_known(request)  # what has been fetched; or the same as another that was worked on meanwhile
        return await request.store(self._fetcher, await self._finder.answer(request))

    async def _refuse_known(self, request: Request) -> None:
        if await request.is_known(self._poison):
            raise KnownUnprocessable

    @staticmethod
    def _take(request: Request, fetched: FetchedInput) -> None:
        if fetched.item.failure is not None:
            raise fetched.item.failure.error()
        request.take(fetched.data, fetched.store)

    def _fetches(self, invocation: Invocation) -> bool:
        return self._script.fetches(invocation.content_type, invocation.form)

    def health(self) -> Health:
        """How the engine is."""
        state = "healthy" if self._replicas.healthy >= self._settings.engine.min_replicas else "below_minimum"
        held = self.capacity.admitted + self.capacity.max_queue_size
        if FETCH_FN in self._script.functions:
            held += self.capacity.fetching  # these wait in a queue of their own
        if self._admission.draining:
            state = "draining"
        return Health(state, self._replicas.healthy, len(self.placement), held, self._admission.retry_after_s)

    def snapshot(self) -> Snapshot:
        """What is so right now, for the metrics."""
        return Snapshot(
            health=self.health().state,
            in_flight=self._admission.in_flight,
            waiting=self._admission.waiting,
            oldest_waiting_since=self._admission.oldest_waiting_since,
            oldest_request_since=next(iter(self._arrived.values()), None),
            max_in_flight=self.capacity.admitted,
            max_queue_size=self.capacity.max_queue_size,
            replicas=self._replicas.states(),
            pool=self._pool.states(),
            fetchers=self._fetcher.states() if FETCH_FN in self._script.functions else (),
            spares=self._pool.spares,
            healthy_replicas=self._replicas.healthy,
        )

    def refused(self, refusal: Refusal) -> None:
        """Count requests that the front end has refused by itself."""
        self._telemetry.refused(refusal.status, refusal.code, refusal.count)

    def exposition(self, *, for_people: bool) -> tuple[str, bytes]:
        """The metrics, content type and text: the figures that people look at as JSON, or all in Prometheus' text format."""
        if for_people:
            return "application/json", json.dumps(self._telemetry.summary()).encode() + b"\n"
        return CONTENT_TYPE, self._telemetry.exposition()

    async def drain(self) -> None:
        """Refuse what is new and wait until the last request has its answer."""
        await self._admission.drain()

    async def stop(self) -> None:
        """End all workers, and tell what is left to tell."""
        told = [self._telling] if self._telling is not None else []
        for task in told:
            task.cancel()
        groups = (self._pool, self._fetcher, self._replicas)
        await asyncio.gather(*(group.stop() for group in groups), *told, return_exceptions=True)

    async def _probe(self, deadline: float) -> tuple[ScriptInfo, tuple[str, ...]]:
        """What the script says of itself, and the GPUs; both in processes of their own, side by side."""
        script = Command("script-probe", "multigpu_inference.engine.script_probe", (), NO_GPU)
        cuda = Command("device-probe", "multigpu_inference.engine.device_probe", (), DEVICE_ORDER)
        wants_gpu = self._settings.engine.devices
        if wants_gpu == "cpu" or (wants_gpu == "auto" and not gpu_is_present()):
            return await ask(script, deadline), ()
        info, report = await asyncio.gather(ask(script, deadline), ask(cuda, deadline))
        return info, cuda_devices(report)

    async def _start_workers(self) -> None:
        groups: list[WorkerGroup] = [self._replicas]
        groups += [self._pool] if self._places.use_pool else []
        groups += [self._fetcher] if FETCH_FN in self._script.functions else []
        try:
            async with asyncio.TaskGroup() as starting:
                for group in groups:
                    starting.create_task(group.start())
        except BaseExceptionGroup as failed:
            await self.stop()
            raise failed.exceptions[0] from None
        if self._script.sample is not None and self._places.unknown:
            arena = RequestArena(Arena.create())
            request = Request(*self._sample_request(), arena)
            try:
                await self._admit(request)
            except ServingError as error:
                await self.stop()
                raise _sample_failure("replica-0", error) from None
            finally:
                arena.close()

    async def _warm_up(self, worker: WorkerProcess) -> None:
        """Let a replica answer the sample, in the stock order, before it gets a request."""
        if self._script.sample is None:
            return
        invocation, body = self._sample_request()
        steps = (TRANSFORM_FN,) if TRANSFORM_FN in self._script.functions else STOCK_ORDER
        arena = RequestArena(Arena.create())
        request = Request(invocation, arena.memory.write([body], 0)[0], arena)
        try:
            if self._sample_fetched:  # a replacement does not depend on where that comes from
                request.take(arena.memory.write(self._sample_fetched, request.used), [])
            elif self._fetches(invocation):
                self._take(request, (await request.fetch(self._fetcher))[0][0])
                self._sample_fetched = [arena.memory.read(blob) for blob in request.source]
            task = request.task(steps)
            task.arena_used = request.used
            worker.reserve()
            await worker.run(task, request.source, arena)
        except ServingError as error:
            raise _sample_failure(worker.name, error) from None
        finally:
            arena.close()

    def _sample_request(self) -> tuple[Invocation, bytes]:
        assert self._script.sample is not None
        body, content_type = self._script.sample
        now = time.monotonic()
        deadline = now + self._settings.engine.startup_timeout_s
        invocation = Invocation("sample", content_type, "", {}, now, deadline)
        self._choose_accept(invocation)
        return invocation, body

    def _choose_accept(self, invocation: Invocation) -> None:
        """Fill in a default where the client accepts anything: the operator's, the script's, or the stock toolkit's."""
        if invocation.accept in ("", "*/*"):
            invocation.accept = self._settings.model.default_accept or self._script.default_accept or STOCK_ACCEPT

    def _log_plan(self) -> None:
        log.event("plan", placement=self.placement, stages=self._script.stages, **dataclasses.asdict(self.capacity))
        if self._script.import_error is not None:
            log.event(
                "script_not_imported_without_gpu",
                reason=self._script.import_error,
                costs="nothing runs in the process pool, and no fetch_fn",
            )
        workers = self._settings.front_end.workers
        devices = len({device for replica in self.placement for device in replica})
        if self._settings.front_end.kind == MMS and workers is not None and workers < self.capacity.front_end_workers:
            log.event(
                "few_front_end_workers",
                message=f"SAGEMAKER_MODEL_SERVER_WORKERS={workers} lets {workers} requests in at a time: "
                f"at most {min(workers * self._script.stages, devices)} of {devices} devices can be busy at once",
            )


def _sample_failure(worker: str, error: ServingError) -> StartupError:
    return StartupError(f"sample_input() cannot be answered by {worker}: {error.detail or error.message}")
