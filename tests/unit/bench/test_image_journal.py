from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.bench_error import BenchError
from bench.image_journal import Journal
from bench.image_outcome import Outcome
from bench.image_use import Use

RUN: dict[str, Any] = {"source": "/photos", "workers": 4}


def reopened(path: Path, **changes: Any) -> Journal:
    with Journal(path, {**RUN, **changes}) as journal:
        return journal


def test_what_was_recorded_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.jsonl"
    with Journal(path, RUN) as journal:
        journal.begin()
        journal.record(Outcome("a.jpg", "a.jpg.png", None, 5.0, 45.0), 0.5)
        journal.record(Outcome("b.jpg", error="500: the script failed"), 0.75)
    content = reopened(path).content
    assert content.done == {"a.jpg"}
    assert content.failed == [Outcome("b.jpg", error="500: the script failed")]
    assert content.outcomes["a.jpg"].inference_ms == 45.0
    assert content.sessions == [0.75]  # one that was killed lasted until its last picture


def test_a_failed_picture_that_succeeds_later_is_done(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, RUN) as journal:
        journal.begin()
        journal.record(Outcome("a.jpg", error="503: no healthy replica"), 0.1)
        journal.end(Use(0.2, 0.5))
    with Journal(path, RUN) as journal:
        journal.begin()
        journal.record(Outcome("a.jpg", "a.jpg.png"), 1.0)
        journal.end(Use(1.5, 0.25))
    content = reopened(path).content
    assert content.done == {"a.jpg"}
    assert content.failed == []
    assert content.sessions == [0.2, 1.5]
    assert content.uses == [Use(0.2, 0.5), Use(1.5, 0.25)]


def test_a_line_that_a_kill_has_cut_off_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, RUN) as journal:
        journal.begin()
        journal.record(Outcome("a.jpg"), 0.1)
    with path.open("a") as file:
        file.write('{"picture": "b.j')
    with Journal(path, RUN) as journal:
        assert journal.content.done == {"a.jpg"}
        journal.begin()
        journal.record(Outcome("b.jpg"), 0.1)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert reopened(path).content.done == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize("name", ["a\nb.jpg", "ä €.jpg", "\udcff.jpg", 'quo"te.jpg', "\u2028.jpg"])
def test_any_name_is_one_line_and_comes_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, RUN) as journal:
        journal.begin()
        journal.record(Outcome(name), 0.1)
    assert len(path.read_bytes().splitlines()) == 3
    assert reopened(path).content.done == {name}


def test_the_journal_of_another_run_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    reopened(path)
    with pytest.raises(BenchError, match=r"is of another run \(source /photos\): --restart begins anew"):
        reopened(path, source="/others")


def test_restart_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, RUN) as journal:
        journal.begin()
        journal.record(Outcome("a.jpg"), 0.1)
    with Journal(path, {"source": "/others"}, restart=True) as journal:
        assert journal.content.done == set()
    with Journal(path, {"source": "/others"}) as journal:
        assert journal.content.run == {"source": "/others"}


def test_two_runs_cannot_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, RUN), pytest.raises(BenchError, match="another run writes"):
        reopened(path)
    reopened(path)


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("once upon a time\nthere was\n")
    with pytest.raises(BenchError, match="none of a journal"):
        reopened(path)
    assert path.read_text() == "once upon a time\nthere was\n"


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written"):
        reopened(tmp_path / "file" / "journal.jsonl")
