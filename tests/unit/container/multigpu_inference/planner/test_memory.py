from __future__ import annotations

from multigpu_inference.planner.memory import PeakMemory, resident_bytes

MIB = 1 << 20


def test_the_peak_of_what_was_given_back_meanwhile_is_seen() -> None:
    with PeakMemory("cpu") as large:
        del_me = bytearray(200 * MIB)
        del_me[:] = b"x" * len(del_me)
        del del_me
    with PeakMemory("cpu") as small:
        pass
    assert large.grown_bytes >= 200 * MIB
    assert small.grown_bytes < 100 * MIB


def test_this_process_has_memory() -> None:
    assert 5 * MIB < resident_bytes() < 100_000 * MIB
