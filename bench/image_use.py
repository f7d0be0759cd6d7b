"""What a session made of the machine: shares of its cores, of its devices, and of its GPUs as the driver has them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from bench import provenance
from bench.container import Container
from bench.device_time import device_time
from bench.processes import usage

_SAMPLE_EVERY_S = 1.0
# The container settles a device's time when requests are answered: of a session of few pictures it knows too little at the end.
_ACCOUNTED = 0.8


@dataclass(frozen=True, slots=True)
class Use:
    """Of one session; shares from 0 to 1.

    Attributes:
        seconds: How long it lasted, from the first picture that was read to the last that was done.
        cpu: Of all cores, by the container and by this process.
        devices: Of the devices' time, in which they worked, as the container counts it; None where it did not.
        gpus: Mean of what the driver said each second: the share of time in which a kernel ran; None without a driver.
    """

    seconds: float
    cpu: float
    devices: float | None = None
    gpus: float | None = None


class UseWatch:
    """A context: looks at the container when it is entered, each second, and when `use` is asked for."""

    def __init__(self, container: Container) -> None:
        """Look at nothing yet."""
        self._container = container
        self._ended = threading.Event()
        self._samples: list[float] = []
        self._thread = threading.Thread(target=self._sample, name="GPU use", daemon=True)

    def __enter__(self) -> UseWatch:
        """Begin."""
        self._devices = self._container.device_seconds()
        self._usage = usage(self._container.pid)
        self._cpu_s = time.process_time()
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def use(self) -> Use:
        """From the beginning until now. CPU time of workers that have ended meanwhile is not known."""
        seconds = self.seconds
        cpu_s = time.process_time() - self._cpu_s + sum(usage(self._container.pid).cpu_since(self._usage).values())
        devices = device_time(self._devices, self._container.device_seconds())
        busy = [each.busy for each in devices if each.seconds >= _ACCOUNTED * seconds]
        return Use(seconds, cpu_s / seconds / provenance.machine()["cores"], _mean(busy), _mean(self._samples))

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_EVERY_S):
            now = _mean(self._container.gpu_utilization())
            if now is None:
                return
            self._samples.append(now)


def together(uses: Sequence[Use]) -> Use | None:
    """Several sessions as one: shares weigh as long as they lasted; None of none."""
    seconds = sum(use.seconds for use in uses)
    if not uses or seconds <= 0:
        return None

    def weighed(shares: list[tuple[float, float | None]]) -> float | None:
        known = [(lasted, share) for lasted, share in shares if share is not None]
        return sum(lasted * share for lasted, share in known) / sum(lasted for lasted, _ in known) if known else None

    return Use(
        seconds,
        weighed([(use.seconds, use.cpu) for use in uses]) or 0.0,
        weighed([(use.seconds, use.devices) for use in uses]),
        weighed([(use.seconds, use.gpus) for use in uses]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
