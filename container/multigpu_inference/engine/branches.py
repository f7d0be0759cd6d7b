"""A stage made of named branches that work on an item at the same time: heavy models on the GPU, light ones on idle cores.

    Branches({
        "matte": Branch(matting, device="cuda:0"),
        "faces": Branch(partial(load_faces, model_dir), processes=2),
        "colours": Branch(count_colours, threads=2),
    })                                      item ──► {"matte": …, "faces": …, "colours": …}

A script makes it in `model_fn` and gives it to a `ReplicaSet` or a `Pipeline` like any other stage; `branches_runner` runs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multigpu_inference.engine import structure
from multigpu_inference.engine.branch_processes import BranchProcesses
from multigpu_inference.errors import ModelError

if TYPE_CHECKING:
    import torch

    from multigpu_inference.engine.pipeline import Pipeline

# What a stage may say of its batches; a branch says it where what it calls does.
_OPTIONS = ("batch_key", "batch_limit", "room")


class Branch:
    """One model of several that work on the same items."""

    def __init__(
        self,
        call: Callable[..., Any],
        device: torch.device | str | None = None,
        *,
        threads: int | None = None,
        processes: int = 0,
        threads_per_process: int = 1,
        max_batch_size: int | None = None,
    ) -> None:
        """Say what is called where. Nothing is started or loaded before `Branches` has it.

        Args:
            call: Turns a list of items into a list of as many results, as a stage does; a stage, too. With `processes` it is
                what loads the model instead: called without arguments in each process, it returns what is called there. It
                must pickle then (a function of a module, or a `functools.partial` of one), and so must items and results.
                Branches in this process are given the very same item, at the same time: one that changes it in place (`mul_`,
                `Image.thumbnail`, an array's `/=`) changes it for the others, so it must work on a copy of its own.
            device: Where it computes; left out: the device of `call` where it has one, else the CPU. On a GPU it only issues
                work, on the current stream, on tensors that are there already. On the CPU it gets tensors on the CPU.
            threads: From how many threads at a time it is called; left out: as `MULTIGPU_STREAMS_PER_STAGE` says.
            processes: In how many processes it runs, without a GPU to be seen; 0: in this one.
            threads_per_process: CPU threads that each of them computes with.
            max_batch_size: Items that it takes at a time; left out: what `call` says of itself, else 1.

        Raises:
            ValueError: where a number is out of its range, or there are to be processes on a GPU.
        """
        of_call = None if processes else call  # what loads a model says nothing of the model
        self.device = device if device is not None else getattr(of_call, "device", "cpu")
        self.max_batch_size = int(getattr(of_call, "max_batch_size", 1) if max_batch_size is None else max_batch_size)
        if not callable(call):
            raise ValueError(f"a branch is something to call, not {type(call).__name__}")
        if processes and (threads is not None or not str(self.device).startswith("cpu")):
            raise ValueError("a branch in processes runs on the CPU, and has a thread for each of them")
        if min(self.max_batch_size, threads or 1, threads_per_process) < 1 or processes < 0:
            raise ValueError("a branch has at least one thread, and a batch at least one item")
        self.processes = processes
        self.threads = processes or threads
        self._threads_per_process = threads_per_process
        self._call = call
        self._elsewhere: BranchProcesses | None = None

    def start(self, name: str) -> None:
        """Start its processes, where it has any; does not wait for them.

        Raises:
            ModelError: where what loads the model cannot be sent to another process.
        """
        if self.processes and self._elsewhere is None:
            self._elsewhere = BranchProcesses(name, self._call, self.processes, self._threads_per_process)

    def wait_until_loaded(self) -> None:
        """Wait for the models of its processes; `ModelError` where one cannot be loaded."""
        if self._elsewhere is not None:
            self._elsewhere.wait_until_loaded()

    def close(self) -> None:
        """End its processes, where it has any."""
        if self._elsewhere is not None:
            self._elsewhere.close()

    def __call__(self, items: Sequence[Any], /) -> Sequence[Any]:
        """Turn items into as many results, in order."""
        if str(self.device).startswith("cpu"):
            items = [structure.place_tensors(item, structure.tensor_paths(item), _to_cpu) for item in items]
        results: Sequence[Any] = (self._elsewhere or self._call)(items)
        return results

    def __getattr__(self, name: str) -> Any:
        """What a stage may say of its batches, where what is called says it."""
        if name in _OPTIONS and not self.processes:
            return getattr(self._call, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Branches:
    """A stage whose result is a dict of what its branches made of the item."""

    def __init__(self, branches: Mapping[str, Branch]) -> None:
        """Start the processes of all branches, and wait until their models are loaded.

        Args:
            branches: By the names that they have in the result; at least one.

        Raises:
            ValueError: where there is none.
            ModelError: where a process cannot load its model; the text says which branch.
        """
        if not branches:
            raise ValueError("a stage of branches needs at least one")
        self.branches = dict(branches)
        self._alone: Pipeline | None = None
        self._making = threading.Lock()
        try:
            for name, branch in self.branches.items():
                branch.start(name)
            for branch in self.branches.values():
                branch.wait_until_loaded()
        except ModelError:
            self.close()
            raise

    @property
    def device(self) -> torch.device | str:
        """The first GPU among those of its branches; the CPU where there is none."""
        devices = [branch.device for branch in self.branches.values()]
        return next((device for device in devices if str(device).startswith("cuda")), devices[0])

    @property
    def max_batch_size(self) -> int:
        """The most items that one of its branches takes at a time; each forms batches of its own."""
        return max(branch.max_batch_size for branch in self.branches.values())

    def __call__(self, items: Sequence[Any], /) -> list[dict[str, Any]]:
        """Take items through all branches at the same time, and wait for the results. A pipeline does not use this.

        Raises:
            BaseException: what a branch raised, with a note that names the branch.
        """
        from multigpu_inference.engine.pipeline import Pipeline  # which knows this module

        with self._making:
            self._alone = self._alone or Pipeline([self])
        return self._alone.map(items)

    def close(self) -> None:
        """End the processes of all branches. Optional: they end with this object, or with this process."""
        for branch in self.branches.values():
            branch.close()


def _to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu() if tensor.is_cuda else tensor
