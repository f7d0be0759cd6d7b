from __future__ import annotations

import threading

import pytest

from multigpu_inference.engine import hops


def test_what_is_recorded_is_added_up_by_name() -> None:
    with hops.recording() as recorded:
        hops.record("a", 1.5)
        hops.record("b", 1.0)
        hops.record("a", 0.5)
    assert recorded == {"a": 2.0, "b": 1.0}
    assert list(recorded) == ["a", "b"]


def test_without_a_recording_nothing_is_kept() -> None:
    hops.record("a", 1.0)
    with hops.recording() as recorded:
        pass
    hops.record("a", 1.0)
    assert recorded == {}


def test_a_recording_within_another_keeps_its_own() -> None:
    with hops.recording() as outer:
        hops.record("a", 1.0)
        with hops.recording() as inner:
            hops.record("b", 2.0)
        hops.record("c", 3.0)
    assert (outer, inner) == ({"a": 1.0, "c": 3.0}, {"b": 2.0})


def test_a_block_is_timed_even_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.25])
    monkeypatch.setattr("multigpu_inference.engine.hops.time.perf_counter", lambda: next(clock))
    with hops.recording() as recorded, pytest.raises(KeyError), hops.timed("a"):
        raise KeyError
    assert recorded == {"a": 250.0}


def test_each_thread_has_a_recording_of_its_own() -> None:
    both = threading.Barrier(2, timeout=5)
    recorded: dict[str, dict[str, float]] = {}

    def work(name: str) -> None:
        with hops.recording() as mine:
            both.wait()
            hops.record(name, 1.0)
            both.wait()
            recorded[name] = dict(mine)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorded == {"a": {"a": 1.0}, "b": {"b": 1.0}}
