"""One run: all pictures of a source through so many workers of the container.

    names ──► read ──► send: the engine, its pool and its replicas ──► write ──► journal, in order or as they come

What decides where a picture is transformed and which replica has it is the container's own engine: here are only the threads
that read, wait for answers and write.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.bench_error import BenchError
from bench.container import Container
from bench.image_journal import Journal, JournalContent
from bench.image_model import ImageModel
from bench.image_outcome import Answered, Outcome, Picture, PictureError
from bench.image_progress import ImageProgress
from bench.image_results import Results
from bench.image_sender import Sender
from bench.image_source import Source, content_type_of
from bench.image_steps import Step, Steps
from bench.image_use import UseWatch
from bench.progress import say
from multigpu_inference.config import Settings
from multigpu_inference.errors import SettingsError
from multigpu_inference.frontend.client import EngineClient

_GRACE_S = 5.0  # for which an answer is waited for behind the engine's own deadline


@dataclass(frozen=True)
class ImageRun:
    """What is to be done, for any number of workers.

    Attributes:
        source: Where pictures come from.
        model: What they are sent to.
        results: Where results go.
        state: The folder of the journals and of the container's log.
        accept: What is asked for; "": what the script makes by itself.
        ordered: Whether results are told in the source's order.
        restart: Whether what was done before is done anew.
        preprocess: Processes that transform; None: as many as workers.
        devices: Simulated devices; None: as many as workers.
        extra: Further settings of the container.
    """

    source: Source
    model: ImageModel
    results: Results
    state: Path
    accept: str = ""
    ordered: bool = False
    restart: bool = False
    preprocess: int | None = None
    devices: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def settings(self, workers: int, folder: str) -> dict[str, str]:
        """The container's environment."""
        return {
            **self.model.settings(workers, self.preprocess or workers, self.devices or workers, folder),
            **self.extra,
        }

    @property
    def read_settings(self) -> Settings:
        """What the container reads of them; `BenchError` where one is not allowed."""
        try:
            return Settings.from_env({**os.environ, **self.extra})
        except SettingsError as error:
            raise BenchError(str(error)) from None

    def journal(self, workers: int) -> Path:
        """The file of a number of workers."""
        return self.state / f"workers-{workers}.jsonl"

    def identity(self, workers: int) -> dict[str, Any]:
        """What a journal has to be of, to go on."""
        return {
            "source": self.source.where,
            "model": self.model.where,
            "output": self.results.where,
            "accept": self.accept,
            "workers": workers,
            "preprocess": self.preprocess or workers,
            "devices": self.devices or workers,
            "settings": dict(self.extra),
        }


def run_images(run: ImageRun, workers: int) -> JournalContent:
    """Do what is left to do, and say what its journal says then.

    Raises:
        BenchError: The container does not start or is gone, or results or the journal cannot be written.
    """
    settings = run.read_settings
    with Journal(run.journal(workers), run.identity(workers), restart=run.restart) as journal:
        done = journal.content.done
        left = [name for name in run.source.names if name not in done]
        title = f"{workers} {'worker' if workers == 1 else 'workers'}"
        if not left:
            say(f"{title}: all {len(run.source.names)} pictures were done before; --restart does them anew")
            return journal.content
        if len(left) < len(run.source.names):
            say(f"{title}: {len(run.source.names) - len(left)} pictures were done before, {len(left)} are left")
        with ExitStack() as stack:
            container = _start(stack, run, workers, title)
            journal.begin()
            watch = stack.enter_context(UseWatch(container))
            progress = stack.enter_context(ImageProgress(title, len(run.source.names), len(run.source.names) - len(left)))
            steps = stack.enter_context(_steps(run, container, settings))
            for outcome in steps.outcomes(left, ordered=run.ordered):
                journal.record(outcome, watch.seconds)
                progress.one(outcome.error is not None)
            journal.end(watch.use())
        return journal.content


def _start(stack: ExitStack, run: ImageRun, workers: int, title: str) -> Container:
    base_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-ml-"))) / "ml"
    run.model.prepare(base_dir)
    locks = base_dir.with_name("locks")
    locks.mkdir()
    say(f"{title}: starting the container")
    return stack.enter_context(Container(base_dir, run.settings(workers, str(locks)), run.state / f"workers-{workers}.log"))


def _steps(run: ImageRun, container: Container, settings: Settings) -> Steps:
    in_flight, ended = container.admitted, threading.Event()
    connect = partial(EngineClient, container.engine_socket, _GRACE_S)
    send = Sender(connect, run.accept, settings.engine.request_timeout_s, container.check, ended)
    return Steps(
        [
            Step("read", run.source.threads, partial(_read, run.source, settings.front_end.max_payload_bytes)),
            Step("send", in_flight, partial(_unless_failed, send)),
            Step("write", run.results.threads, partial(_unless_failed, partial(_write, run.results))),
        ],
        # As many again are read ahead or are being written, so that the engine always has enough.
        bound=2 * in_flight + run.source.threads + run.results.threads,
        ended=ended,
    )


def _read(source: Source, max_bytes: int, name: str) -> Picture | Outcome:
    try:
        body = source.read(name)
    except Exception as error:  # whatever a file system or S3 has against one picture is no reason to end the run
        return Outcome(name, error=_line(error))
    if len(body) > max_bytes:  # a front end would have said so, and there is none between
        return Outcome(name, error=f"413: larger than SAGEMAKER_MAX_PAYLOAD_IN_MB={max_bytes >> 20}")
    return Picture(name, body, content_type_of(name))


def _write(results: Results, answered: Answered) -> Outcome:
    written = results.write(answered)
    return Outcome(answered.name, written, None, answered.transformation_ms, answered.inference_ms)


def _unless_failed(work: Callable[[Any], Any], item: Any) -> Any:
    """Pass on what failed before; what fails now is told instead of the item."""
    if isinstance(item, Outcome):
        return item
    try:
        return work(item)
    except PictureError as error:
        return Outcome(item.name, error=str(error))


def _line(error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else str(error)) or ""
    return " ".join(f"{type(error).__name__}: {reason}".split())[:300]
