"""The command line: `python -m bench run WORKLOAD`, `suite`, `report`, `images`, from the repository's root."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from bench import images, report, suite
from bench.bench_error import BenchError
from bench.branch_time import measure_branches
from bench.front_end_memory import front_end_memory_table, measure_front_end_memory
from bench.measure import measure
from bench.memory import measure_memory
from bench.overload import measure_overload
from bench.result import breakdown_table, noise_note, results_table, write_json
from bench.setup import FRONT_ENDS, Setup, make_setup
from bench.workload import ROOT, WORKLOADS, find

OUTPUT = ROOT / "build" / "bench"


def main() -> int:
    """Do what the command line says; the exit code."""
    arguments = _parser().parse_args()
    # As Ctrl-C: leave through the contexts, so that everything that was started ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code: int = arguments.do(arguments)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _run(arguments: argparse.Namespace) -> int:
    setup = _setup(arguments)
    if arguments.memory:
        growth = measure_memory(setup)
        print(growth.table())
        return _written(arguments, growth.as_json())
    if arguments.front_end_memory:
        memory = measure_front_end_memory(setup)
        print(front_end_memory_table(memory))
        return _written(arguments, memory.as_json())
    if arguments.ping:
        overload = measure_overload(setup)
        print(overload.table())
        return _written(arguments, overload.as_json())
    if arguments.branches:
        branches = measure_branches(setup)
        print(branches.table())
        return _written(arguments, branches.as_json())
    results = measure(setup)
    print(results_table(results))
    print(f"\n{breakdown_table(results[-1])}")
    if note := noise_note(results):
        print(f"\n{note}")
    found = [result.as_json() for result in results]
    return _written(arguments, found[0] if len(found) == 1 else found)


def _written(arguments: argparse.Namespace, found: Any) -> int:
    if arguments.json is not None:
        write_json(arguments.json, found)
    return 0


def _suite(arguments: argparse.Namespace) -> int:
    data = suite.run(quick=arguments.quick, only=arguments.only)
    # Minutes of a whole suite are not to be lost to a part of it.
    figures, page = ("part.json", "part.html") if arguments.quick or arguments.only else ("suite.json", "index.html")
    write_json(OUTPUT / figures, data)
    print(suite.goals_table(data))
    report.write(data, OUTPUT / page)
    print(f"\nthe report: build/bench/{page}, its figures: build/bench/{figures}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    report.write(suite.read(OUTPUT / "suite.json"), OUTPUT / "index.html")
    print("build/bench/index.html")
    return 0


def _setup(arguments: argparse.Namespace) -> Setup:
    return make_setup(
        find(arguments.workload),
        front_end=arguments.front_end,
        devices=arguments.devices,
        replicas=arguments.replicas,
        concurrency=arguments.concurrency,
        rate=arguments.rate,
        seconds=arguments.seconds,
        warmup_s=arguments.warmup,
        repeat=arguments.repeat,
        trace=arguments.trace,
        limit=not arguments.no_limit,
        body_bytes=arguments.body_bytes,
        extra=dict(arguments.set),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the endpoint against its limits.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure one workload")
    run.set_defaults(do=_run)
    run.add_argument("workload", choices=WORKLOADS, help=", ".join(WORKLOADS), metavar="WORKLOAD")
    run.add_argument("--devices", type=_positive, help="simulated devices (4)")
    run.add_argument("--replicas", type=_positive, help="replicas (simulated: one per device; else 2)")
    run.add_argument("--concurrency", type=_several, default=(), help="requests in flight; 1,4,16 for one point after another")
    run.add_argument("--rate", type=float, help="open loop: requests per second, over so many connections")
    run.add_argument("--seconds", type=float, default=10.0, help="of each window (10)")
    run.add_argument("--warmup", type=float, default=2.0, help="seconds before each window (2)")
    run.add_argument("--repeat", type=_positive, default=1, help="windows of which the median counts (1)")
    run.add_argument(
        "--front-end", default="mms", choices=FRONT_ENDS, help="mms or http (HTTP), engine (its socket), stock (noop only)"
    )
    run.add_argument("--set", type=_assignment, action="append", default=[], metavar="NAME=VALUE", help="a container setting")
    run.add_argument("--trace", action="store_true", help="have the engine log when each hop of a request was")
    run.add_argument("--body-bytes", type=_positive, metavar="N", help="bodies of so many bytes (noop, echo, hold)")
    run.add_argument("--no-limit", action="store_true", help="do not measure the limit")
    run.add_argument("--memory", action="store_true", help="how much memory so many requests in flight take, each sent once")
    run.add_argument("--front-end-memory", action="store_true", help="memory of mms or http while so many are held (hold)")
    run.add_argument("--branches", action="store_true", help="how long branches take together (sim-branches, tiny-branches)")
    run.add_argument("--ping", action="store_true", help="an overload: offer five times what it can serve")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    whole = commands.add_parser("suite", help="every figure that has a goal, and the report")
    whole.set_defaults(do=_suite)
    whole.add_argument("--quick", action="store_true", help="a smoke run of about two minutes; its figures mean nothing")
    whole.add_argument("--only", help="rows whose name contains this")
    commands.add_parser("report", help="make the report again from build/bench/suite.json").set_defaults(do=_report)
    images.add_arguments(
        commands.add_parser("images", help="3,000 pictures, or yours, through 1 to 8 workers"), _positive, _assignment
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number from 1")
    return int(text)


def _several(text: str) -> tuple[int, ...]:
    return tuple(_positive(word) for word in text.split(","))


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
