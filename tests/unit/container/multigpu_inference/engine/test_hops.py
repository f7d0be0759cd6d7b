from __future__ import annotations

import threading

import pytest

from multigpu_inference.engine import hops
from multigpu_inference.engine.hops import Span


def test_a_spans_length_is_in_milliseconds() -> None:
    assert Span("a", 10.0, 10.25).milliseconds == 250.0


def test_a_span_is_of_one_item_unless_it_says_otherwise() -> None:
    assert (Span("a", 0, 1).batch_size, Span("a", 0, 1, 8).batch_size) == (1, 8)


def test_what_is_recorded_is_kept_in_order() -> None:
    spans = [Span("a", 1.0, 1.5), Span("b", 0.0, 1.0), Span("a", 2.0, 2.5)]
    with hops.recording() as recorded:
        for span in spans:
            hops.record(span)
    assert recorded == spans


def test_without_a_recording_nothing_is_kept() -> None:
    hops.record(Span("a", 0, 1))
    with hops.recording() as recorded:
        pass
    hops.record(Span("a", 0, 1))
    assert recorded == []


def test_a_recording_within_another_keeps_its_own() -> None:
    with hops.recording() as outer:
        hops.record(Span("a", 0, 1))
        with hops.recording() as inner:
            hops.record(Span("b", 0, 1))
        hops.record(Span("c", 0, 1))
    assert ([s.name for s in outer], [s.name for s in inner]) == (["a", "c"], ["b"])


def test_a_block_is_timed_even_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.25])
    monkeypatch.setattr("multigpu_inference.engine.hops.time.monotonic", lambda: next(clock))
    with hops.recording() as recorded, pytest.raises(KeyError), hops.timed("a"):
        raise KeyError
    assert recorded == [Span("a", 10.0, 10.25)]


def test_each_thread_has_a_recording_of_its_own() -> None:
    both = threading.Barrier(2, timeout=5)
    recorded: dict[str, list[Span]] = {}

    def work(name: str) -> None:
        with hops.recording() as mine:
            both.wait()
            hops.record(Span(name, 0, 1))
            both.wait()
            recorded[name] = list(mine)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorded == {"a": [Span("a", 0, 1)], "b": [Span("b", 0, 1)]}
