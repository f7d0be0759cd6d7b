"""A process pool for a script's own use where the container does not run it: a notebook, a test, a stock container.

In the container `input_fn` already runs in a pool worker, so there a call is just a call.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from multigpu_inference import process
from multigpu_inference.config import Settings
from multigpu_inference.engine.capacity import available_cores, plan_capacity
from multigpu_inference.engine.process_pool import NO_GPU, ONE_THREAD

P = ParamSpec("P")
T = TypeVar("T")


class LocalPool:
    """Worker processes made on first use, ended with this process."""

    def __init__(self) -> None:
        """Nothing is started yet: importing a script must stay cheap."""
        self._executor: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        atexit.register(self.shutdown)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in one of the processes and wait for what it returns; it raises here what it raises there.

        Args:
            function: Importable by its name, as `multiprocessing` needs it.
            *args: Must pickle, as must the result.
            **kwargs: The same.
        """
        if process.is_worker():
            return function(*args, **kwargs)
        with self._lock:
            executor = self._executor = self._executor or _start()
        try:
            return executor.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            self.shutdown()  # one of its processes died, which an executor does not survive; the next call has a new one
            raise

    def shutdown(self) -> None:
        """End the processes; a later call starts new ones."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()


def _start() -> ProcessPoolExecutor:
    workers = plan_capacity(Settings.from_env(os.environ).engine, 0, available_cores()).pool_workers
    # Never a fork: this process may hold a CUDA context and threads.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In a new worker, before the function's module is imported: one thread, no GPU."""
    os.environ.update(ONE_THREAD | NO_GPU)
