"""The fetch process: one worker that runs `fetch_fn` and `store_fn` of many requests at a time."""

from __future__ import annotations

from multigpu_inference.child_process import KEEP_MEMORY, Command
from multigpu_inference.config import EngineSettings
from multigpu_inference.engine.process_pool import NO_GPU, ONE_THREAD
from multigpu_inference.engine.worker_group import WorkerGroup


class FetchProcess(WorkerGroup):
    """The fetch worker, replaced where it dies."""

    def __init__(self, settings: EngineSettings, fetching: int, hang_after_s: float) -> None:
        """For so many requests that are fetched at a time; nothing is started yet."""
        threads = 2 * fetching  # as many again may be storing their answers, and need not wait for a slow source
        super().__init__(
            "fetch",
            lambda slot: Command(
                f"fetch-{slot}",
                "multigpu_inference.engine.fetch_worker",
                (str(threads),),
                ONE_THREAD | NO_GPU | KEEP_MEMORY,
                credentials=True,
            ),
            1,
            room=threads,
            startup_timeout_s=settings.startup_timeout_s,
            hang_after_s=hang_after_s,
            late_tasks=fetching,  # one that hangs costs a thread, not what all others have under way
        )
