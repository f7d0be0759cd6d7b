"""The report page: one HTML file with its pictures in it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from bench import plots, suite
from bench.device_time import device_lines
from bench.front_end_memory import front_end_memory_lines
from bench.overload import OVERLOAD_TITLES, overload_line
from bench.result import Result, noise_note
from bench.row import FRONT_END_MEMORY, LOAD, OVERLOAD
from bench.workload import WORKLOADS

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.2rem; } p { max-width: 48rem; } .quiet { color: #656d76; }
table { border-collapse: collapse; font-size: 13px; width: 100%; } img { width: 100%; margin: 0.4rem 0; }
th, td { text-align: right; padding: 0.3rem 0.6rem; border-bottom: 1px solid #e6e8eb; white-space: nowrap; }
th { color: #656d76; font-weight: 600; } th:first-child, td:first-child { text-align: left; white-space: normal; }
td.yes { color: #1a7f37; } td.NO { color: #cf222e; font-weight: 600; } code { font-size: 12px; }
.wide { overflow-x: auto; }
"""

_WHERE = {
    "mms": "through multi-model-server",
    "http": "through the HTTP front end",
    "engine": "at the engine's socket",
    "stock": "multi-model-server alone",
}


def write(data: Mapping[str, Any], path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(data))


def page(data: Mapping[str, Any]) -> str:
    """The page of what `suite.run` gave."""
    machine = data["machine"]
    parts = [
        "<h1>What the endpoint keeps busy</h1>",
        f"<p class=quiet>{escape(data['date'])} · commit {escape(data['commit'] or 'unknown')} · {machine['cores']} cores, "
        f"{escape(machine['cpu'])} · Python {escape(machine['python'])}</p>",
    ]
    if data["quick"]:
        parts.append("<p><b>A smoke run: its windows are too short for its figures to mean anything.</b></p>")
    parts += [
        "<h2>Goals</h2>",
        "<p>Each figure is a share of a limit taken in the same run: of the arithmetic ideal for simulated devices, of the "
        "script's functions in bare loops with no server, or of multi-model-server with a handler that returns at once; or a "
        "multiple of what the same container serves through multi-model-server.</p>",
        table(suite.GOAL_TITLES, suite.goal_lines(data)),
    ]
    results = [Result.from_json(row["result"]) for row in data["rows"] if row["kind"] == LOAD]
    if note := noise_note(results):
        parts.append(f"<p><b>{escape(note)}</b></p>")
    if results:
        parts += ["<h2>Where CPU time and memory go</h2>", _usage(results)]
    parts += _devices([result for result in results if result.device_time and not WORKLOADS[result.workload].empty])
    parts += _front_end_memory([row["result"] for row in data["rows"] if row["kind"] == FRONT_END_MEMORY])
    parts += _overloads([row["result"] for row in data["rows"] if row["kind"] == OVERLOAD])
    for sweep in data["sweeps"]:
        parts += _sweep([Result.from_json(each) for each in sweep])
    return document("Benchmark", parts)


def document(title: str, parts: Iterable[str]) -> str:
    """A page of its own."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def _sweep(results: Sequence[Result]) -> list[str]:
    first = results[0]
    workload = WORKLOADS[first.workload]
    where = _WHERE[first.front_end]
    devices = f"{first.devices} simulated devices" if first.devices else f"{first.replicas} replicas"
    parts = [
        f"<h2>{first.workload}: {escape(workload.summary)}</h2>",
        f"<p class=quiet>{devices}, {where}. <code>{escape(first.command)}</code></p>",
        picture(plots.throughput_and_latency(results), f"Throughput and latency of {first.workload} by requests in flight"),
    ]
    if any(result.hops_ms for result in results):
        parts.append(picture(plots.time_per_hop(results), f"Time per hop of {first.workload}"))
    traced = [result for result in results if result.trace]
    if traced:
        usual = workload.concurrency * (first.devices or 1)
        chosen = min(traced, key=lambda result: abs(result.concurrency - usual))
        parts.append(f"<h3>{chosen.concurrency} in flight</h3>")
        parts.append(picture(plots.gantt(chosen.trace), "Requests over replicas and stages"))
    else:
        parts.append("<p class=quiet>No picture of single requests: the container's log holds no spans.</p>")
    return parts


def _usage(results: Iterable[Result]) -> str:
    results = list(results)
    roles = list(dict.fromkeys(role for result in results for role in result.cpu_ms_per_request))
    titles = ["CPU ms a request", *roles, "PSS MiB"]
    rows = [
        [
            f"{result.title}, {result.front_end}, {result.concurrency} in flight",
            *(f"{result.cpu_ms_per_request.get(role, 0.0):.2f}" for role in roles),
            f"{sum(result.pss_mib.values()):.0f}",
        ]
        for result in results
    ]
    return table(titles, rows)


def _devices(results: Sequence[Result]) -> list[str]:
    """What the devices did, of results whose container said it; a script without a model keeps none busy."""
    if not results:
        return []
    named = [(f"{result.title}, {result.concurrency} in flight", result.device_time) for result in results]
    rows = [replace(each, device=f"{name}, {each.device}") for name, devices in named for each in devices]
    return [
        "<h2>Where the devices' idle time goes</h2>",
        "<p>Each second of a device, as the container counted it while it was measured: it worked, or it waited, and for "
        "what.</p>",
        picture(plots.device_time(rows), "Shares of busy and idle time of each device"),
        table(*device_lines(rows)),
        *(f"<p>{escape(result.title)}: {escape(result.advice)}</p>" for result in results if result.advice),
    ]


def _front_end_memory(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return []
    lines = [front_end_memory_lines(each) for each in found]
    return [
        "<h2>Memory of the front end</h2>",
        "<p>Of the processes that are there because of it, without the requests' arenas, which stand beside it.</p>",
        table(lines[0][0], [row for _, rows in lines for row in rows]),
    ]


def _overloads(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return []
    return ["<h2>Five times too much is offered</h2>", table(OVERLOAD_TITLES, map(overload_line, found))]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of a page."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>"
        + "".join(f"<td{f' class={cell}' if cell in ('yes', 'NO') else ''}>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def picture(svg: str, text: str) -> str:
    """A picture of a page, with what it shows in words."""
    # As an image and not in line: the ids in one picture must not meet those in another.
    return f"<img alt='{escape(text, quote=True)}' src='data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}'>"
