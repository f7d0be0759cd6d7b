from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from multigpu_inference import log


@pytest.fixture(autouse=True)
def source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_source", "test-0")


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_an_event_is_one_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    log.event("worker_ready", worker="pool-3", load_ms=12, text="two\nlines")
    (line,) = lines(capfd)
    del line["time"]
    assert line == {
        "source": "test-0",
        "event": "worker_ready",
        "worker": "pool-3",
        "load_ms": 12,
        "text": "two\nlines",
    }


def test_the_time_is_now_in_utc(capfd: pytest.CaptureFixture[str]) -> None:
    log.event("x")
    (line,) = lines(capfd)
    time = datetime.fromisoformat(line["time"])
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(seconds=30)


def test_the_source_is_the_process_that_wrote_it(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_source("engine")
    log.event("x")
    assert lines(capfd)[0]["source"] == "engine"


def test_none_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    log.event("x", reason=None, count=0)
    (line,) = lines(capfd)
    assert "reason" not in line
    assert line["count"] == 0


def test_what_json_does_not_know_is_written_as_text(capfd: pytest.CaptureFixture[str]) -> None:
    log.event("x", paths=frozenset({"[0]"}), text="\ud800")
    assert lines(capfd)[0]["paths"] == "frozenset({'[0]'})"


def test_an_exception_has_class_text_and_trace(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("seven")
    except KeyError as error:
        log.exception("function_failed", error, request_id="r-1")
    (line,) = lines(capfd)
    assert (line["error"], line["message"], line["request_id"]) == ("KeyError", "'seven'", "r-1")
    assert line["trace"].startswith("Traceback")
    assert 'raise KeyError("seven")' in line["trace"]


def test_what_was_printed_before_comes_before() -> None:
    script = "from multigpu_inference import log; print('first'); log.event('second'); print('third')"
    out = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, env=environ()).stdout
    first, second, third = out.splitlines()
    assert (first, json.loads(second)["event"], third) == (b"first", "second", b"third")


@pytest.mark.parametrize("before", ["pass", "print('still buffered')"], ids=["nothing", "something"])
def test_a_log_that_nobody_reads_fails_no_request(before: str) -> None:
    script = f"import os; from multigpu_inference import log; {before}; log.event('x'); os._exit(7)"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, check=False, env=environ())
    os.close(writing)
    assert (done.returncode, done.stderr) == (7, b"")


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "\N{GRINNING FACE}" * 5000, "reason": "\N{GRINNING FACE}" * 5000},
        {"spans": [("preprocess_ms", 1.0, 2.0, 1)] * 1000},
        {"placement": {f"replica-{number}": ("cuda:0",) for number in range(2000)}, "text": "x" * 10_000},
        {f"field-{number}": "\N{GRINNING FACE}" * 100 for number in range(500)},
        {"x" * 200 + str(number): number for number in range(50)},
    ],
    ids=["text beyond ASCII", "a list", "a dictionary", "many fields", "long names"],
)
def test_no_line_is_longer_than_a_pipe_takes_whole(capfd: pytest.CaptureFixture[str], fields: dict[str, Any]) -> None:
    log.event("request", request_id="r-1", **fields)
    out = capfd.readouterr().out
    assert 500 < len(out.encode()) <= 4096
    line = json.loads(out)
    assert (line["event"], line["request_id"]) == ("request", "r-1")


def test_a_traces_end_stays(capfd: pytest.CaptureFixture[str]) -> None:
    log.event("x", trace="a" * 5000 + "the end", short="as it is", spans=[1, 2])
    (line,) = lines(capfd)
    assert line["trace"].endswith("the end")
    assert (line["short"], line["spans"]) == ("as it is", [1, 2])


def environ() -> dict[str, str]:
    """With this process's import path, and standard output buffered as it is by default."""
    return {"PYTHONPATH": os.pathsep.join(sys.path)}


class StuckReader:
    """One that takes nothing, and by whose clock each wait takes its time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stuck = True
        self.waits: list[int] = []

    def has_room(self, wait_ms: int) -> bool:
        self.waits.append(wait_ms)
        self.now += wait_ms / 1e3 if self.stuck else 0
        return not self.stuck


def test_a_reader_that_is_stuck_is_waited_for_once_a_minute() -> None:
    stuck = StuckReader()
    reader = log.Reader(stuck.has_room, lambda: stuck.now)
    assert [reader.takes() for _ in range(3)] == [False] * 3
    assert stuck.waits == [0, 1000, 0, 0]
    stuck.now += 61
    assert not reader.takes()
    assert stuck.waits[4:] == [0, 1000]
    assert reader.lost() == 4


def test_once_it_takes_lines_again_it_is_told_how_many_are_missing() -> None:
    stuck = StuckReader()
    reader = log.Reader(stuck.has_room, lambda: stuck.now)
    assert not reader.takes()
    stuck.stuck = False
    assert reader.takes()
    assert (reader.lost(), reader.lost()) == (1, 0)


def test_a_full_pipe_costs_lines_and_says_so_later() -> None:
    script = (
        "import sys; from multigpu_inference import log; log._WAIT_S = 0.01\n"
        "for i in range(400): log.event('x', text='y' * 3000)\n"
        "sys.stderr.write('done\\n'); sys.stdin.readline(); log.event('last')\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, env=environ()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"done\n"
        data = os.read(process.stdout.fileno(), 1 << 20)
        process.stdin.write(b"\n")
        process.stdin.close()
        events = [json.loads(line) for line in (data + process.stdout.read()).splitlines()]
    assert [event["event"] for event in events[-2:]] == ["last", "log_lines_lost"]
    assert events[-1]["count"] == 402 - len(events) > 300  # with the two just named, none is missing
