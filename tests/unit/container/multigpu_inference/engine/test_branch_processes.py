from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from multigpu_inference import Branch, Branches, Pipeline
from multigpu_inference.errors import BadRequest, ModelError, Unavailable, Unprocessable
from support import wait_until
from unit.container.multigpu_inference.engine import branch_models

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def commands() -> Iterator[Pipeline]:
    """One process that does what it is told, beside a branch that returns the item."""
    branches = Branches({"there": Branch(branch_models.load_commands, processes=1), "here": Branch(list)})
    yield Pipeline([branches])
    branches.close()


def pid_of(commands: Pipeline) -> int:
    pid: int = commands(("pid",))["there"]
    return pid


def test_a_branch_runs_in_a_process_of_its_own(commands: Pipeline) -> None:
    assert pid_of(commands) != os.getpid()
    assert psutil.Process(pid_of(commands)).ppid() == os.getpid()


def test_its_results_are_those_of_this_process_bit_for_bit() -> None:
    there = Branches({"there": Branch(branch_models.load_network, processes=1)})
    here = branch_models.load_network()
    items = [torch.rand(1, 3, 16 + number % 3, 16) for number in range(40)]
    with torch.no_grad():
        expected = here(items)
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(Pipeline([there]), items))
    assert all(torch.equal(result["there"], reference) for result, reference in zip(results, expected, strict=True))
    assert not results[0]["there"].requires_grad
    there.close()


@pytest.mark.parametrize(("name", "value"), [("CUDA_VISIBLE_DEVICES", ""), ("OMP_NUM_THREADS", "1")])
def test_it_sees_no_gpu_and_has_its_own_thread_count(commands: Pipeline, name: str, value: str) -> None:
    assert commands(("environ", name))["there"] == value


def test_an_error_there_fails_its_item_with_the_trace_and_the_branch(commands: Pipeline) -> None:
    with pytest.raises(RuntimeError, match="LookupError: no such thing") as caught:
        commands(("raise", "no such thing"))
    trace, branch = caught.value.__notes__
    assert "branch_models.py" in trace
    assert branch == "raised by the branch 'there'"
    assert commands(1) == {"there": 1, "here": 1}


def test_an_error_with_a_status_keeps_it(commands: Pipeline) -> None:
    with pytest.raises(BadRequest, match="no face"):
        commands(("refuse", "no face"))


def test_out_of_memory_there_is_out_of_memory_here(commands: Pipeline) -> None:
    with pytest.raises(MemoryError):
        commands(("too much",))


def test_a_result_that_does_not_pickle_fails_alone(commands: Pipeline) -> None:
    with pytest.raises(Exception, match="pickle"):
        commands(threading.Lock())
    assert commands(1)["there"] == 1


def test_large_items_come_through(commands: Pipeline) -> None:
    picture = np.arange(3_000_000, dtype=np.uint8).reshape(1000, 1000, 3)
    assert np.array_equal(commands(picture)["there"], picture)


def test_a_process_that_dies_is_replaced_and_its_batch_tried_once_more(commands: Pipeline, tmp_path: Path) -> None:
    before = pid_of(commands)
    assert commands(("die once", str(tmp_path / "died")))["there"] == "alive"
    assert pid_of(commands) != before


def test_an_item_that_kills_two_processes_fails_alone(commands: Pipeline) -> None:
    with pytest.raises(Unprocessable):
        commands(("die",))
    assert commands(1)["there"] == 1


def test_deaths_from_outside_count_against_nobody_but_end_in_503(commands: Pipeline) -> None:
    with pytest.raises(Unavailable):
        commands(("be killed",))
    assert commands(1)["there"] == 1


def test_one_that_was_killed_while_idle_costs_nobody_a_try(commands: Pipeline, tmp_path: Path) -> None:
    pid = pid_of(commands)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, PATIENCE_S)
    assert commands(("die once", str(tmp_path / "died")))["there"] == "alive"


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (branch_models.load_nothing, "FileNotFoundError: no weights here"),
        (branch_models.load_and_die, "ended before it was loaded"),
        (partial(int, 3), "returned int, which cannot be called"),
        (lambda: list, "does not pickle"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_at_once(load: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=f"the branch 'faces'.*{reason}"):
        Branches({"faces": Branch(load, processes=1)})


def test_it_outlives_the_thread_that_loaded_it() -> None:
    with ThreadPoolExecutor(1) as threads:
        branches = threads.submit(lambda: Branches({"a": Branch(branch_models.load_commands, processes=1)})).result()
    assert branches([1, 2]) == [{"a": 1}, {"a": 2}]  # the kernel ends what the thread has started: another one takes its place
    branches.close()


def test_closing_ends_the_processes() -> None:
    branches = Branches({"a": Branch(branch_models.load_commands, processes=1)})
    pid = branches([("pid",)])[0]["a"]
    branches.close()
    assert not psutil.pid_exists(pid)
    with pytest.raises(RuntimeError, match="closed"):
        branches([1])


def test_closing_while_one_works_leaves_none_behind() -> None:
    branches = Branches({"a": Branch(branch_models.load_commands, processes=1)})
    before = {child.pid for child in psutil.Process().children()} - {branches([("pid",)])[0]["a"]}
    with ThreadPoolExecutor(1) as threads:
        works = threads.submit(branches, [("sleep", 60)])
        elsewhere = branches.branches["a"]._elsewhere
        assert elsewhere is not None
        wait_until(lambda: elsewhere._free.empty(), PATIENCE_S)
        branches.close()
        with pytest.raises(RuntimeError, match="closed"):
            works.result(PATIENCE_S)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_dropping_the_stage_ends_the_processes() -> None:
    branches = Branches({"a": Branch(branch_models.load_commands, processes=1)})
    pipeline = Pipeline([branches])
    pid = pipeline(("pid",))["a"]
    del branches, pipeline
    wait_until(lambda: not psutil.pid_exists(pid), PATIENCE_S)


def test_it_ends_with_its_parent() -> None:
    script = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {sys.path!r}
        from multigpu_inference import Branch, Branches
        from unit.container.multigpu_inference.engine import branch_models
        branches = Branches({{"a": Branch(branch_models.load_commands, processes=1)}})
        print(branches([("pid",)])[0]["a"], flush=True)
        branches([("sleep", 60)])
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, PATIENCE_S)
