from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bench import plots, report, suite
from bench.result import Result, breakdown_table, format_table, noise_note, results_table

MACHINE = {"cores": 2, "cpu": "a <CPU>", "python": "3.11.9"}


def trace(requests: int = 6) -> list[dict[str, Any]]:
    """Requests over two replicas; the stages of the first two are shared by a batch."""
    made = []
    for number in range(requests):
        start = 100.0 + (0 if number < 2 else number * 0.01)
        batch = 2 if number < 2 else 1
        spans = [
            ["preprocess_ms", start - 0.01 + number * 1e-4, start, 1],
            ["stage_1_ms", start, start + 0.008, batch],
            ["stage_2_ms", start + 0.008, start + 0.02, batch],
            ["postprocess_ms", start + 0.02, start + 0.031, 1],
        ]
        made.append({"request_id": f"r{number}", "replica": "0" if number < 2 else str(number % 2), "spans": spans})
    return made


def result(**fields: Any) -> Result:
    given: dict[str, Any] = {
        "workload": "sim", "front_end": "mms", "devices": 4, "replicas": 4, "concurrency": 16, "rate": None,
        "seconds": 10.0, "requests": 1900, "requests_per_second": 190.0, "limit": "ideal", "limit_per_second": 200.0,
        "ratio": 0.95, "ratios": [0.94, 0.95, 0.96], "p50_ms": 80.0, "p95_ms": 90.0, "p99_ms": 110.0, "errors": {},
        "cpu_ms_per_request": {"engine": 1.25, "client": 0.2}, "pss_mib": {"engine": 15.0, "java": 100.0},
        "foreign_cores": 0.01,
        "hops_ms": {"queue_ms": 40.0, "preprocess_ms": 9.0, "stage_1_ms": 8.0, "stage_2_ms": 12.0, "postprocess_ms": 11.0},
        "command": "python -m bench run sim",
    }  # fmt: skip
    return Result(**{**given, **fields})


def data(**fields: Any) -> dict[str, Any]:
    row = {
        "name": "sim, 4 devices",
        "kind": "load",
        "result": result().as_json(),
        "goals": [
            {"text": "ratio ≥ 0.96", "figure": "ratio", "measured": 0.95, "reached": False},
            {"text": "p99 ms ≤ 200", "figure": "p99_ms", "measured": 110.0, "reached": True},
        ],
    }
    sweep = [result(concurrency=1).as_json(), result(trace=trace()).as_json()]
    given = {"quick": False, "machine": MACHINE, "date": "2026-01-02", "commit": "abc1234", "rows": [row], "sweeps": [sweep]}
    return {**given, **fields}


def pictures(page: str) -> list[str]:
    return [base64.b64decode(found).decode() for found in re.findall(r"data:image/svg\+xml;base64,([^']+)", page)]


def test_the_page_holds_its_figures_and_its_pictures_and_nothing_from_elsewhere() -> None:
    page = report.page(data())
    assert "a &lt;CPU&gt;" in page
    assert "<td>0.950</td>" in page
    assert page.count("<td class=NO>") == 1
    assert page.count("<td class=yes>") == 1
    assert len(pictures(page)) == 3  # throughput and latency, hops, single requests
    assert not re.search(r"(src|href)='?https?:", page)


def test_without_spans_the_page_says_so() -> None:
    page = report.page(data(sweeps=[[result().as_json()]]))
    assert len(pictures(page)) == 2
    assert "holds no spans" in page


def test_without_hops_and_sweeps_there_is_a_page_too() -> None:
    assert pictures(report.page(data(rows=[], sweeps=[]))) == []
    assert len(pictures(report.page(data(sweeps=[[result(hops_ms={}).as_json()]])))) == 1


@pytest.mark.parametrize(
    "svg", [plots.throughput_and_latency([result()]), plots.time_per_hop([result()]), plots.gantt(trace())]
)
def test_a_picture_is_drawn(svg: str) -> None:
    assert ET.fromstring(svg).tag.endswith("svg")


def test_a_batch_is_one_bar_and_pool_workers_that_overlap_have_lanes() -> None:
    bars = list(plots._bars(trace()))
    stages = [bar for bar in bars if bar["row"][0] == 1]
    assert len(stages) == 2 + 2 * 4  # one batch of two, four requests alone, in two stages each
    assert next(bar["batch"] for bar in stages if bar["row"] == (1, "0", "stage_1_ms")) == 2
    assert {bar["row"] for bar in bars if bar["row"][0] == 0} == {(0, "preprocess_ms", 0), (0, "preprocess_ms", 1)}


def test_the_table_of_goals() -> None:
    table = suite.goals_table(data())
    assert re.search(r"sim, 4 devices +ratio ≥ 0.96 +0.950 +0.940 0.950 0.960 +NO", table)
    assert re.search(r"sim, 4 devices +p99 ms ≤ 200 +110.000 +yes", table)
    assert "scaling" not in table


def test_wrong_answers_miss_a_goal_of_their_own() -> None:
    row = {"name": "a row", "kind": "load", "result": result(errors={"503": 2}).as_json(), "goals": []}
    lines = suite.goal_lines(data(rows=[row]))
    assert lines == [
        ["a row", "(reported)", "ratio 0.950", "0.940 0.950 0.960", ""],
        ["a row", "no errors", "2", "", "NO"],
    ]


def test_scaling_is_eight_devices_by_one() -> None:
    rows = [
        {"name": name, "kind": "load", "result": result(requests_per_second=rate).as_json(), "goals": []}
        for name, rate in ((suite._ONE, 48.0), (suite._EIGHT, 384.0))
    ]
    assert suite.goal_lines(data(rows=rows))[-1] == ["scaling: sim, 8 devices against 1", "≥ 7.6 times", "8.00", "", "yes"]
    assert {suite._ONE, suite._EIGHT} <= {row.name for row in suite.ROWS}


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (suite.Goal("ratio", 0.9), 0.9, True),
        (suite.Goal("ratio", 0.9), 0.899, False),
        (suite.Goal("p50_ms", 45.0, at_least=False), 45.1, False),
        (suite.Goal("p50_ms", 45.0, at_least=False), 44.0, True),
    ],
)
def test_a_goal_is_a_least_or_a_most(goal: suite.Goal, value: float, reached: bool) -> None:
    assert goal.reached(value) is reached


def test_a_result_survives_its_json_and_has_no_nan_in_it() -> None:
    assert Result.from_json(result().as_json()) == result()
    assert result(p50_ms=float("nan")).as_json()["p50_ms"] is None


def test_a_disturbed_measurement_is_told() -> None:
    assert "1.2 cores were busy" in noise_note([result(), result(foreign_cores=1.24)])
    assert noise_note([result()]) == noise_note([]) == ""


def test_the_tables_on_the_terminal() -> None:
    table = results_table([result(errors={"503": 3}), result(rate=20.0, limit_per_second=None, ratio=None)])
    assert "3 of 503" in table
    assert "20/s" in table
    assert re.search(r"engine +1.25 +15", breakdown_table(result()))
    assert format_table(["a", "bb"], [["x", "1"]], words=1) == "a  bb\n─  ──\nx   1"
