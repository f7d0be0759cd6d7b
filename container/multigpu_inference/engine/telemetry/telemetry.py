"""What the engine tells of its work: counts, where the devices' time went, metrics, CloudWatch's lines, spans.

    each request ──► finished ──► statistics, device times, spans
    each second  ──► run ──► device times settled, once a minute CloudWatch's line
    when asked   ──► exposition (Prometheus), summary (the page, the log, the benchmark)

Belongs to the engine's loop: one process sees every request, so every figure is that of the whole container.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from multigpu_inference import log
from multigpu_inference.config import Settings
from multigpu_inference.engine.placement import Devices
from multigpu_inference.engine.telemetry.device_time import DeviceTime
from multigpu_inference.engine.telemetry.embedded_metrics import EmbeddedMetrics, Totals, write_line
from multigpu_inference.engine.telemetry.exposition import Observed, exposition
from multigpu_inference.engine.telemetry.finished_request import FinishedRequest
from multigpu_inference.engine.telemetry.gpus import Gpus
from multigpu_inference.engine.telemetry.idle_causes import BUSY, Timeline
from multigpu_inference.engine.telemetry.process_memory import process_memory
from multigpu_inference.engine.telemetry.snapshot import Snapshot
from multigpu_inference.engine.telemetry.statistics import Statistics
from multigpu_inference.engine.telemetry.summary import summary
from multigpu_inference.engine.telemetry.tracing import start_tracing

_TICK_S = 1.0
_MINUTE_S = 60.0
# For the last spans to be exported, when everything else has ended.
_EXPORT_LIMIT_S = 2.0


class Telemetry:
    """Counts, settles, tells."""

    def __init__(
        self,
        settings: Settings,
        placement: tuple[Devices, ...],
        snapshot: Callable[[], Snapshot],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count; nothing is told by itself before `run`.

        Args:
            settings: All of them.
            placement: For each replica its devices, stage by stage.
            snapshot: What is so right now.
            clock: The monotonic clock, in seconds.
        """
        self._settings = settings
        self._placement = placement
        self._snapshot = snapshot
        self._statistics = Statistics()
        self._clock = clock
        now = clock()
        names = dict.fromkeys(device for devices in placement for device in devices)
        self._devices = {name: DeviceTime(now) for name in names}
        self._of_replica = {str(i): self._stages(devices) for i, devices in enumerate(placement)}
        self._gpus = Gpus(tuple(names))
        self._pool_seconds = (0.0, 0.0)
        self._minute_ends = now + _MINUTE_S
        self._cloudwatch: EmbeddedMetrics | None = None
        if settings.telemetry.cloudwatch:
            self._cloudwatch = EmbeddedMetrics(settings.telemetry.endpoint_name, socket.gethostname(), Totals())
        self._tracing = start_tracing() if settings.telemetry.otlp_endpoint else None

    def finished(self, request: FinishedRequest) -> None:
        """Take note of an answered request. Never raises: its answer is still to be sent."""
        try:
            self._note(request)
        except Exception as error:  # what is in it comes from processes that run user code
            log.exception("telemetry_failed", error, request_id=request.invocation.request_id)

    def _note(self, request: FinishedRequest) -> None:
        self._statistics.finished(request)
        of_stage = self._of_replica.get(request.replica)
        if of_stage is not None:
            self._note_batches(request, of_stage)
        if self._cloudwatch is not None:
            self._cloudwatch.request_seconds.add(request.ended - request.invocation.arrived)
        if self._tracing is not None:
            self._tracing.hand(request)

    def refused(self, status: int, code: str, count: int = 1) -> None:
        """Take note of requests that the front end has refused by itself."""
        self._statistics.refused(status, code, count)

    def spared(self, code: str, before: str) -> None:
        """Take note of a request that nobody waited for any more, and so of what was not begun because of it."""
        self._statistics.spared_before(code, before)

    def exposition(self) -> bytes:
        """The metrics as Prometheus' text, of the type `exposition.CONTENT_TYPE`."""
        now, snapshot = self._clock(), self._snapshot()
        pids = {"engine": os.getpid(), **{w.name: w.pid for w in snapshot.workers if w.pid is not None}}
        memory = {name: read for name, pid in pids.items() if (read := process_memory(pid)) is not None}
        seconds = {name: device.seconds for name, device in self._devices.items()}
        return exposition(Observed(now, self._statistics, snapshot, seconds, self._gpus.readings, memory))

    def summary(self) -> dict[str, Any]:
        """The figures that people look at, and the advice."""
        delay = self._settings.engine.max_batch_delay_ms
        return summary(self._statistics, self._snapshot(), self._placement, self._devices, self._gpus.readings, delay)

    async def run(self) -> None:
        """Settle each second and write CloudWatch's line each minute, until cancelled; then tell what is left to tell.

        The devices' time begins here: before, models were loaded.
        """
        self._gpus.start()
        self._devices = {name: DeviceTime(self._clock()) for name in self._devices}
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                try:
                    await self.tick()
                except Exception as error:  # a fault of ours: the next second is counted again
                    log.exception("telemetry_failed", error)
        finally:
            self._gpus.stop()
            self._write_line()
            await self._stop_tracing()
            self._log_work()

    async def tick(self) -> None:
        """What is done each second. Gives the loop back after each device."""
        now, snapshot = self._clock(), self._snapshot()
        horizon = now if snapshot.oldest_request_since is None else min(now, snapshot.oldest_request_since)
        decode_share = self._decode_share()
        out = {
            device for worker, of in zip(snapshot.replicas, self._placement, strict=True) if worker.pid is None for device in of
        }
        for name, device in self._devices.items():
            device.replacing(now, is_so=name in out)
            device.decode_share = decode_share
            device.settle(horizon)
            device.mark()
            await asyncio.sleep(0)
        if self._cloudwatch is not None:
            self._cloudwatch.sample(now, snapshot)
            if now >= self._minute_ends:
                self._minute_ends = now + _MINUTE_S
                self._write_line()

    @staticmethod
    def _stages(devices: Devices) -> dict[str, str]:
        """The device of each hop that is work of one."""
        return {"predict_ms": devices[0], **{f"stage_{number}_ms": device for number, device in enumerate(devices, 1)}}

    def _note_batches(self, request: FinishedRequest, of_stage: dict[str, str]) -> None:
        arrived = ready = request.invocation.arrived
        spans = request.spans
        for name, began, ended, items in spans:
            device = of_stage.get(name)
            # What cannot be comes from a process that runs user code.
            if device is not None and began < ended <= request.ended:
                first = self._devices[device].worked(began, ended, request.replica, name, Timeline(ready, arrived, spans))
                if first:
                    self._statistics.batch(request.replica, name, ended - began, items)
            ready = max(ready, ended)

    def _decode_share(self) -> float:
        """How much of the pool's work since the last time was decoding; where it had none, of all its work."""
        before = self._pool_seconds
        self._pool_seconds = after = self._statistics.seconds_of("preprocess"), self._statistics.seconds_of("postprocess")
        decode, encode = after[0] - before[0], after[1] - before[1]
        if decode + encode <= 0:
            decode, encode = after
        return decode / (decode + encode) if decode + encode > 0 else 1.0

    def _totals(self) -> Totals:
        snapshot = self._snapshot()
        return Totals(
            requests=self._statistics.num_requests,
            server_errors=self._statistics.num_server_errors,
            refusals=self._statistics.num_refusals,
            restarts=sum(worker.restarts for worker in snapshot.workers),
            busy_s=tuple(device.seconds[BUSY] for device in self._devices.values()),
            elapsed_s=tuple(sum(device.seconds.values()) for device in self._devices.values()),
        )

    def _log_work(self) -> None:
        """Say at the end what has been done, in one line: how busy each device was, and what would make it busier."""
        try:
            spent = {name: device.seconds for name, device in self._devices.items()}
            busy = {name: round(of[BUSY] / max(1e-9, sum(of.values())) * 100, 1) for name, of in spent.items()}
            advice = self.summary()["advice"]
            log.event("work_done", requests=self._statistics.num_requests, busy_percent=busy, advice=advice)
        except Exception as error:  # a fault of ours, at the very end
            log.exception("telemetry_failed", error)

    def _write_line(self) -> None:
        if self._cloudwatch is not None:
            totals = self._totals()
            write_line(self._cloudwatch.line(time.time(), totals))
            self._cloudwatch.begin(totals)

    async def _stop_tracing(self) -> None:
        if self._tracing is not None:
            self._tracing.stop()
            deadline = time.monotonic() + _EXPORT_LIMIT_S
            while self._tracing.running and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
