from __future__ import annotations

from pathlib import Path

from multigpu_inference.planner.machine import Machine, free_memory_bytes

MIB = 1 << 20


def test_gpus_are_named_as_the_engine_names_them_and_stand_for_themselves() -> None:
    machine = Machine(2, 2, 4, MIB, 2, 4)
    assert machine.names(5, 2) == ("cuda:0", "cuda:1")
    assert machine.device("cuda:1") == "cuda:1"


def test_more_devices_of_the_cpu_than_there_are_begin_anew() -> None:
    machine = Machine(0, 2, 4, MIB, 2, 4)
    assert [machine.device(name) for name in machine.names(5, 2)] == ["cpu:0", "cpu:1", "cpu:0", "cpu:1", "cpu:0"]
    assert machine.device("cpu") == "cpu:0"


def test_a_containers_own_limit_counts_where_it_is_smaller(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{30 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{20 * MIB}\n")
    assert free_memory_bytes(tmp_path) == 10 * MIB
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes(tmp_path) > 30 * MIB
    assert free_memory_bytes(tmp_path / "nothing") > 30 * MIB
