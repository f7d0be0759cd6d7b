"""What is served and what is sent: the workloads by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench.bench_error import BenchError
from bench.pictures import noise, photos
from bench.simulation import BATCHED, STUDY, UNBATCHED, Simulation

ROOT = Path(__file__).resolve().parent.parent
_SCRIPTS = ROOT / "bench" / "workloads"
_PHOTOS = ROOT / "demo" / "photos"
_BYTES = "application/octet-stream"
_BODIES = 4  # different ones, sent in turn
_HELD_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """A script and the requests that it gets.

    Attributes:
        name: On the command line.
        summary: One line for tables.
        script: The file that becomes `inference.py`; None: the reference application with the demo's weights.
        inputs: Makes the bodies, which are sent in turn.
        content_type: Of the bodies.
        accept: What is asked for.
        exact: Whether answers must equal the serial reference's byte for byte; else as `answers.same_picture` allows.
        concurrency: Requests in flight where nothing else is asked for; of a simulation, per device.
        settings: Settings of the container that belong to the workload.
        simulation: The simulated devices.
        empty: Whether its functions do nothing, so that it is compared with another server and not with them.
    """

    name: str
    summary: str
    script: Path | None
    inputs: Callable[[], list[bytes]]
    content_type: str
    accept: str
    exact: bool
    concurrency: int
    settings: Mapping[str, str] = field(default_factory=dict)
    simulation: Simulation | None = None
    empty: bool = False

    def with_bodies_of(self, length: int) -> Workload:
        """The same with bodies of so many bytes that mean nothing; `BenchError` where the script has to understand them."""
        if self.content_type != _BYTES:
            raise BenchError(f"--body-bytes: {self.name} needs bodies that it understands")
        return replace(self, inputs=partial(noise, _BODIES, length))


def _demo_photos() -> list[bytes]:
    return [path.read_bytes() for path in sorted(_PHOTOS.glob("*.jpg"))]


_SIM = Workload(
    name="sim",
    summary="two stages of 8 and 12 ms on simulated devices, no batches",
    script=_SCRIPTS / "sim.py",
    inputs=partial(photos, 8, (160, 120), 8, 70),
    content_type="image/jpeg",
    accept="image/png",
    exact=True,
    concurrency=4,
    settings={"MULTIGPU_DEVICES": "cpu", "MULTIGPU_PREPROCESS": "pool", "MULTIGPU_STAGE_THREADS": "1"},
    simulation=UNBATCHED,
)

_ALL = (
    Workload(
        name="noop",
        summary="200 KB in, 10 bytes out, nothing between",
        script=_SCRIPTS / "noop.py",
        inputs=partial(noise, _BODIES, 200_000),
        content_type=_BYTES,
        accept=_BYTES,
        exact=True,
        concurrency=32,
        empty=True,
    ),
    Workload(
        name="echo",
        summary="200 KB in, the same 200 KB out",
        script=_SCRIPTS / "echo.py",
        inputs=partial(noise, _BODIES, 200_000),
        content_type=_BYTES,
        accept=_BYTES,
        exact=True,
        concurrency=32,
        empty=True,
    ),
    Workload(
        name="hold",
        summary="5 MB in, held back until all are there, 10 bytes out",
        script=_SCRIPTS / "hold.py",
        inputs=partial(noise, _BODIES, _HELD_BYTES),
        content_type=_BYTES,
        accept=_BYTES,
        exact=True,
        concurrency=128,
        empty=True,
    ),
    Workload(
        name="tiny",
        summary="JPEG of a megapixel, 10 ms of model, PNG",
        script=_SCRIPTS / "tiny.py",
        inputs=partial(photos, 4, (1152, 864), 8, 88),
        content_type="image/jpeg",
        accept="image/png",
        exact=False,
        concurrency=16,
    ),
    Workload(
        name="medium",
        summary="small JPEG, 100 ms of model, PNG",
        script=_SCRIPTS / "medium.py",
        inputs=partial(photos, 4, (400, 300), 8, 85),
        content_type="image/jpeg",
        accept="image/png",
        exact=False,
        concurrency=16,
    ),
    Workload(
        name="matting",
        summary="the reference application with the demo's weights: a photo becomes a matte",
        script=None,
        inputs=_demo_photos,
        content_type="image/jpeg",
        accept="image/png",
        exact=False,
        concurrency=8,
    ),
    _SIM,
    Workload(
        name="sim-branches",
        summary="three branches of 40, 30 and 24 ms on a simulated device, in a process and on a thread",
        script=_SCRIPTS / "sim_branches.py",
        inputs=_SIM.inputs,
        content_type=_SIM.content_type,
        accept="application/json",
        exact=True,
        concurrency=4,
        settings=_SIM.settings,
    ),
    Workload(
        name="tiny-branches",
        summary="small JPEG, three networks of 10, 6 and 2 ms at the same time",
        script=_SCRIPTS / "tiny_branches.py",
        inputs=partial(photos, 4, (400, 300), 8, 85),
        content_type="image/jpeg",
        accept="application/json",
        exact=True,
        concurrency=4,
    ),
    Workload(
        name="shared",
        summary="2 KB in, held for a second within a network of 64 MiB, 10 bytes out",
        script=_SCRIPTS / "shared.py",
        inputs=partial(noise, _BODIES, 2048),
        content_type=_BYTES,
        accept=_BYTES,
        exact=True,
        concurrency=64,
        settings={"MULTIGPU_PREPROCESS": "pool", "MULTIGPU_STREAMS_PER_STAGE": "64"},
    ),
    Workload(
        name="sim-batched",
        summary="two stages of 6 + 2·n and 9 + 3·n ms on simulated devices, batches of up to 8",
        script=_SIM.script,
        inputs=_SIM.inputs,
        content_type=_SIM.content_type,
        accept=_SIM.accept,
        exact=True,
        concurrency=16,
        settings={**_SIM.settings, "MULTIGPU_MAX_BATCH_SIZE": "8"},
        simulation=BATCHED,
    ),
    replace(
        _SIM,
        name="study",
        summary="one model of 45 ms on simulated devices, 5 ms of transformation: the study of 3,000 pictures",
        simulation=STUDY,
    ),
)
WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}


def find(name: str) -> Workload:
    """A workload by its name; `BenchError` where there is none."""
    try:
        return WORKLOADS[name]
    except KeyError:
        raise BenchError(f"there is no workload {name!r}: there are {', '.join(WORKLOADS)}") from None
