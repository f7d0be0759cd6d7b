from __future__ import annotations

import subprocess
import sys

import pytest

from multigpu_inference.engine.memory_limit import ran_out
from multigpu_inference.errors import FunctionFailed

_WITHIN_64_MB = """
from multigpu_inference.engine.memory_limit import limit_memory
{before}
limit_memory(64 << 20)
{then}
"""


def python(then: str, before: str = "") -> str:
    """What a process prints that may have 64 MB more than it has."""
    script = _WITHIN_64_MB.format(before=before, then=then)
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def test_within_the_limit_there_is_memory_and_beyond_it_there_is_none_and_then_there_is_again() -> None:
    assert python(
        "kept = bytearray(40 << 20)\n"
        "try:\n    bytearray(40 << 20)\nexcept MemoryError:\n    print('none')\n"
        "del kept\nprint(len(bytearray(40 << 20)))"
    ) == f"none\n{40 << 20}"  # fmt: skip


def test_what_a_process_has_before_does_not_count_nor_does_what_it_shares_or_only_reserves() -> None:
    assert python(
        "shared = mmap.mmap(-1, 512 << 20)\nshared[:4] = b'here'\nreserved = mmap.mmap(-1, 1 << 34, prot=mmap.PROT_READ)\n"
        "print(len(bytearray(40 << 20)))",
        before="import mmap\nkept = bytearray(512 << 20)",
    ) == str(40 << 20)  # fmt: skip


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (OSError("out of memory error when reading image file"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (ValueError("the picture is too large"), False),
    ],
)
def test_what_says_that_there_was_no_more_memory(error: BaseException, out: bool) -> None:
    assert ran_out(error) is out
    failed = FunctionFailed()
    failed.__cause__ = error
    assert ran_out(failed) is out
