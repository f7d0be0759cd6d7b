from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.load import LoadOutcome
from bench.load_process import Window
from bench.processes import Usage, cpu_seconds, machine_cpu_seconds, memory_mib, role_of, usage

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["java", "-cp", "x.jar", "com.amazonaws.ml.mms.ModelServer"], "java"),
        (["python", "/x/mms/model_service_worker.py", "--sock-type", "unix"], "front-end workers"),
        (["python", "-P", "-m", "multigpu_inference.engine.server", "5"], "engine"),
        (["python", "-P", "-m", "multigpu_inference.engine.pool_worker", "5"], "pool"),
        (["python", "-P", "-m", "multigpu_inference.engine.replica_worker", "5"], "replicas"),
        (["python", "-P", "-m", "multigpu_inference.frontend.model_server", "/run", "1", "4"], "launcher"),
        (["python", "-P", "-m", "multigpu_inference.frontend.http.server", "/run", "1"], "front end"),
        (["python", "entrypoint.py", "serve"], "supervision"),
        ([], "supervision"),
    ],
)
def test_roles_by_command_line(command: list[str], role: str) -> None:
    assert role_of(command) == role


def test_cpu_time_of_a_process_whose_name_has_blanks_and_brackets() -> None:
    fields = ["S", *["0"] * 10, str(3 * TICKS), str(2 * TICKS), "0", "0"]
    assert cpu_seconds(f"12 (a ) b) {' '.join(fields)}") == 5.0


def test_memory_lines() -> None:
    rollup = "00400000-7fff [rollup]\nRss:   4096 kB\nPss:   2048 kB\nTHPeligible: 1\n"
    assert memory_mib(rollup) == {"Rss": 4.0, "Pss": 2.0}


def test_cpu_since_counts_from_before_and_from_the_start_of_what_is_new() -> None:
    before = Usage({"engine": 2.0, "pool": 5.0}, {}, {}, 10.0)
    after = Usage({"engine": 3.5, "pool": 4.0, "java": 1.0}, {}, {}, 20.0)
    assert after.cpu_since(before) == {"engine": 1.5, "pool": 0.0, "java": 1.0}


def test_time_of_the_whole_machine_is_all_but_idle_and_stolen() -> None:
    fields = [1, 2, 4, 1000, 1000, 8, 16, 1000, 0, 0]
    assert machine_cpu_seconds(f"cpu  {' '.join(str(n * TICKS) for n in fields)}\ncpu0 0") == 31.0


def test_what_is_neither_the_server_nor_the_load_is_somebody_elses() -> None:
    outcome = LoadOutcome(seconds=10.0, latencies_ms=[1.0] * 4, errors={}, client_cpu_s=1.0)
    window = Window(outcome, Usage({"pool": 1.0}, {}, {}, 100.0), Usage({"pool": 5.0}, {}, {}, 112.0))
    assert window.foreign_cores == pytest.approx(0.7)
    assert window.requests_per_second == pytest.approx(0.4)
    assert window.cpu_ms_per_request() == {"pool": 1000.0, "client": 250.0}


def test_a_living_process_and_its_child_are_both_counted() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = usage(process.pid)
        process.communicate(b"\n")
    assert seen.pss_mib["supervision"] > 5  # two interpreters
    assert set(seen.cpu_s) == {"supervision"}


def test_shared_memory_is_told_apart_by_role() -> None:
    code = (
        "import mmap, os; file = os.memfd_create('arena'); os.ftruncate(file, 8 << 20)\n"
        "memory = mmap.mmap(file, 8 << 20); memory[:] = bytes(8 << 20); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = usage(process.pid)
        process.communicate(b"\n")
    assert seen.shmem_mib == {"supervision": 8.0}
    assert seen.pss_mib["supervision"] > 10


def test_a_process_that_has_gone_uses_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    seen = usage(process.pid)
    assert (seen.cpu_s, seen.pss_mib, seen.shmem_mib) == ({}, {}, {})


def test_our_own_cpu_time_agrees_with_the_kernel() -> None:
    seen = usage(os.getpid()).cpu_s
    assert sum(seen.values()) >= time.process_time() * 0.9 - 0.1
