from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bench import plots, report, rows, suite
from bench.device_time import DeviceTime
from bench.format_table import format_table
from bench.goal import Goal
from bench.result import Result, breakdown_table, noise_note, results_table

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
    "svg",
    [
        plots.throughput_and_latency([result()]),
        plots.time_per_hop([result()]),
        plots.gantt(trace()),
        plots.device_time([DeviceTime("cpu:0", 9.0, 0.5, {"decode": 0.25, "no_traffic": 0.25})]),
    ],
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
    measured = [
        {"name": name, "kind": "load", "result": result(requests_per_second=rate).as_json(), "goals": []}
        for name, rate in ((rows.ONE, 48.0), (rows.EIGHT, 384.0))
    ]
    assert suite.goal_lines(data(rows=measured))[-1] == ["scaling: sim, 8 devices against 1", "≥ 7.6 times", "8.00", "", "yes"]
    assert {rows.ONE, rows.EIGHT} <= {row.name for row in rows.ROWS}


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (Goal("ratio", 0.9), 0.9, True),
        (Goal("ratio", 0.9), 0.899, False),
        (Goal("p50_ms", 45.0, at_least=False), 45.1, False),
        (Goal("p50_ms", 45.0, at_least=False), 44.0, True),
    ],
)
def test_a_goal_is_a_least_or_a_most(goal: Goal, value: float, reached: bool) -> None:
    assert goal.reached(value) is reached


def test_a_result_survives_its_json_and_has_no_nan_in_it() -> None:
    assert Result.from_json(result().as_json()) == result()
    assert result(p50_ms=float("nan")).as_json()["p50_ms"] is None


DEVICES = [
    DeviceTime("cpu:0", 9.8, 0.75, {"decode": 0.05, "no_traffic": 0.2}),
    DeviceTime("cpu:1", 9.9, 0.5, {"decode": 0.5}),
]


def test_the_devices_time_survives_the_json() -> None:
    told = result(device_time=DEVICES)
    assert Result.from_json(told.as_json()) == told
    earlier = {name: value for name, value in result().as_json().items() if name != "device_time"}
    assert Result.from_json(earlier).device_time == []


def test_the_devices_time_is_told_on_the_terminal_where_there_is_any() -> None:
    assert re.search(r"cpu:1 +50.0 % +50.0 % +0.0 %", breakdown_table(result(device_time=DEVICES)))
    assert "busy" not in breakdown_table(result())


def test_the_page_shows_where_the_devices_time_went() -> None:
    row = {**data()["rows"][0], "result": result(device_time=DEVICES).as_json()}
    page = report.page(data(rows=[row]))
    assert "Where the devices" in page
    assert "<td>sim, 16 in flight, cpu:0</td><td>75.0 %</td><td>5.0 %</td><td>20.0 %</td>" in page
    assert len(pictures(page)) == 4
    assert "Where the devices" not in report.page(data())


def test_a_script_without_a_model_keeps_no_device_busy() -> None:
    row = {**data()["rows"][0], "result": result(workload="noop", devices=None, device_time=DEVICES).as_json()}
    assert "Where the devices" not in report.page(data(rows=[row]))


def test_memory_and_overloads_have_tables_of_their_own() -> None:
    mms = {"front_end": "mms", "in_flight": 128, "held": 128, "settled": True, "bodies_in_arenas": 120, "started_mib": 1.0,
           "rest_mib": 2.0, "peak_mib": 2000.5, "arenas_mib": 572.0, "errors": {}, "mms": None}  # fmt: skip
    memory = {"name": "front-end memory", "kind": "front-end memory", "goals": [], "reported": "rest_mib",
              "result": {**mms, "front_end": "http", "rest_mib": 30.25, "mms": mms}}  # fmt: skip
    overload = {"name": "overload", "kind": "overload", "goals": [], "reported": "goodput_share",
                "result": {"workload": "tiny", "front_end": "mms", "capacity_per_second": 60.0, "offered_per_second": 300.0,
                           "requests_per_second": 58.5, "goodput_share": 0.975, "accepted_p99_ms": 200.0,
                           "accepted_p99_ratio": 1.5, "refused": {"503": 7}, "refused_p99_ms": 12.25, "errors": {"504": 1},
                           "recovered_s": 0.25, "pings": 80, "not_200": 3, "ping_p99_ms": 40.5,
                           "ping_max_ms": 50.25}}  # fmt: skip
    measured = data(rows=[memory, overload])
    page = report.page(measured)
    assert "<td>mms</td><td>128</td><td>128</td><td>120</td>" in page
    assert "<td>2000.5 MiB</td>" in page
    assert "<td>0.975</td><td>200 ms</td><td>1.50 x</td><td>7</td><td>12.2 ms</td><td>1 of 504</td><td>0.25 s</td>" in page
    assert suite.goal_lines(measured) == [
        ["front-end memory", "(reported)", "rest mib 30.250", "", ""],
        ["overload", "(reported)", "goodput share 0.975", "", ""],
        ["overload", "no errors", "1", "", "NO"],
    ]


def test_a_disturbed_measurement_is_told() -> None:
    assert "1.2 cores were busy" in noise_note([result(), result(foreign_cores=1.24)])
    assert noise_note([result()]) == noise_note([]) == ""


def test_the_tables_on_the_terminal() -> None:
    table = results_table([result(errors={"503": 3}), result(rate=20.0, limit_per_second=None, ratio=None)])
    assert "3 of 503" in table
    assert "20/s" in table
    assert "noop of 5 MB" in results_table([result(workload="noop", body_bytes=5_000_000)])
    assert re.search(r"engine +1.25 +15", breakdown_table(result()))
    assert format_table(["a", "bb"], [["x", "1"]], words=1) == "a  bb\n─  ──\nx   1"
