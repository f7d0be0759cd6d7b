from __future__ import annotations

import mmap
import os
from pathlib import Path

import psutil

from multigpu_inference.engine.telemetry.process_memory import process_memory


def test_it_is_what_the_kernel_says() -> None:
    memory = process_memory(os.getpid())
    assert memory is not None
    said = psutil.Process().memory_info()
    assert abs(memory.resident_bytes - said.rss) < 16 << 20
    assert 0 < memory.shared_bytes < memory.resident_bytes


def test_shared_memory_is_told_apart() -> None:
    before = process_memory(os.getpid())
    with mmap.mmap(-1, 64 << 20) as shared:  # anonymous, but shared
        shared.write(b"x" * (64 << 20))
        after = process_memory(os.getpid())
    assert before is not None
    assert after is not None
    assert after.shared_bytes - before.shared_bytes > 60 << 20


def test_a_process_that_has_gone_has_none(tmp_path: Path) -> None:
    assert process_memory(1, tmp_path) is None


def test_a_process_that_is_just_going_has_none(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("")
    assert process_memory(7, tmp_path) is None
