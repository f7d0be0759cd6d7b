"""What runs of several numbers of workers came to: the table on the terminal, and the JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.format_table import format_table
from bench.image_journal import JournalContent
from bench.image_use import together
from bench.percentiles import percentile

TITLES = (
    "workers",
    "preprocessing",
    "pictures",
    "failed",
    "transformation p50 ms",
    "inference p50 ms",
    "total s",
    "pictures/s",
    "speed-up",
    "CPU",
    "devices",
    "GPU",
)


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """One number of workers.

    Attributes:
        workers: Replicas.
        preprocess: Processes that transform.
        pictures: Those that were done.
        failed: Those that were not.
        transformation_p50_ms: Median of `input_fn`; None where it was not told.
        inference_p50_ms: Median of the model in all its stages; None likewise.
        seconds: From the first picture to the last, in all sessions together; the container's start is no part of it.
        sessions: How many that were.
        cpu: Share of all cores that the container and the run took; None where no session ended by itself.
        devices: Share of the devices' time in which they worked; None where it is not known.
        gpus: Share of the time in which a kernel ran, as the driver says; None without GPUs.
    """

    workers: int
    preprocess: int
    pictures: int
    failed: int
    transformation_p50_ms: float | None
    inference_p50_ms: float | None
    seconds: float
    sessions: int
    cpu: float | None
    devices: float | None
    gpus: float | None

    @property
    def per_second(self) -> float:
        """Pictures a second."""
        return self.pictures / self.seconds if self.seconds else 0.0


def image_figures(content: JournalContent, workers: int, preprocess: int) -> ImageFigures:
    """What a journal comes to."""
    done = [outcome for outcome in content.outcomes.values() if outcome.error is None]
    use = together(content.uses)
    return ImageFigures(
        workers=workers,
        preprocess=preprocess,
        pictures=len(done),
        failed=len(content.failed),
        transformation_p50_ms=_p50(outcome.transformation_ms for outcome in done),
        inference_p50_ms=_p50(outcome.inference_ms for outcome in done),
        seconds=sum(content.sessions),
        sessions=len(content.sessions),
        cpu=use.cpu if use else None,
        devices=use.devices if use else None,
        gpus=use.gpus if use else None,
    )


def speed_up(figures: ImageFigures, first: ImageFigures) -> float:
    """How many times the pictures a second of the first."""
    return figures.per_second / first.per_second if first.per_second else 0.0


def image_rows(several: Sequence[ImageFigures]) -> list[list[str]]:
    """A line for each, under `TITLES`."""
    return [
        [
            str(each.workers),
            str(each.preprocess),
            str(each.pictures),
            str(each.failed),
            _number(each.transformation_p50_ms),
            _number(each.inference_p50_ms),
            f"{each.seconds:.1f}",
            f"{each.per_second:.1f}",
            f"{speed_up(each, several[0]):.2f}",
            *(_percent(share) for share in (each.cpu, each.devices, each.gpus)),
        ]
        for each in several
    ]


def image_table(several: Sequence[ImageFigures]) -> str:
    """For a terminal."""
    return format_table(list(TITLES), image_rows(several), words=0)


def _p50(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return percentile(known, 50) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.0f} %"
