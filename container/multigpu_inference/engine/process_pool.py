"""The process pool: `input_fn` and `output_fn` on the CPU cores that the replicas leave, one task a worker at a time.

A worker that dies is replaced by a warm spare at once, because importing a script with torch takes seconds. What strangers send
is decoded here, so a worker has a limit of its own for time, shorter than a request's, and one for memory (`memory_limit`).
"""

from __future__ import annotations

import itertools

from multigpu_inference.child_process import KEEP_MEMORY, Command
from multigpu_inference.config import EngineSettings
from multigpu_inference.engine.worker_group import WorkerGroup


def threads(count: int) -> dict[str, str]:
    """Environment for a process whose libraries compute with so many threads: they read it once, when they are imported."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(count))


ONE_THREAD = threads(1)
# Of later ones' time, for a fresh worker's first task: its script has been imported already, and there is no model to warm up.
_FIRST_TASKS = 3
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


class ProcessPool(WorkerGroup):
    """The pool workers."""

    def __init__(self, settings: EngineSettings, count: int, hang_after_s: float) -> None:
        """A pool of `count` workers and a spare; nothing is started yet.

        Args:
            settings: Their limits.
            count: Workers.
            hang_after_s: When anything is taken for a hang, in seconds; a pool worker's task may be so earlier.
        """
        numbers = itertools.count()
        hang_after_s = min(settings.preprocess_timeout_s, hang_after_s)
        super().__init__(
            "pool",
            lambda slot: Command(
                f"pool-{next(numbers)}", "multigpu_inference.engine.pool_worker", (), ONE_THREAD | NO_GPU | KEEP_MEMORY
            ),
            count,
            room=1,
            startup_timeout_s=settings.startup_timeout_s,
            hang_after_s=hang_after_s,
            first_task_s=_FIRST_TASKS * hang_after_s,
            keep_spare=True,
            take_turns=False,
        )
