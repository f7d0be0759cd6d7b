"""`plan MODEL_DIR`: from the command line to what is printed, and to the exit code.

What the measured processes print goes to a log file or nowhere; standard output is the plan's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from multigpu_inference.errors import SettingsError, StartupError
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.model_folder import model_folder
from multigpu_inference.planner.plan_json import as_json
from multigpu_inference.planner.planning import Planned, Planning, Wishes
from multigpu_inference.planner.report import (
    final_line,
    measured_lines,
    noise_lines,
    plan_lines,
    settings_lines,
    verified_lines,
)
from multigpu_inference.planner.verification import Verified

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR", help="a folder with code/inference.py")
    add_request_arguments(parser)
    parser.add_argument("--devices", type=_positive, metavar="N", help="plan for so many devices like those that are there")
    parser.add_argument("--cores", type=_positive, metavar="N", help="plan for so many CPU cores")
    parser.add_argument("--target", choices=("throughput", "latency"), default="throughput", help="what counts first")
    parser.add_argument("--verify", action="store_true", help="start the engine with the recommended settings and measure it")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--log", type=Path, metavar="FILE", help="where what the measured processes print goes (nowhere)")


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a request to try (`sample`)."""
    parser.add_argument("--body", type=Path, metavar="FILE", help="a request's body (else the script's sample_input())")
    parser.add_argument("--content-type", metavar="TYPE", help="of that body")
    parser.add_argument("--accept", metavar="TYPE", help="what the request asks for")


def run(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> int:
    """Carry out the command; its exit code."""
    try:
        with own_output(arguments.log) as out:
            asyncio.run(_plan(arguments, environ, out))
    except StartupError as error:
        print(f"plan: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


async def _plan(arguments: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> None:
    wishes = Wishes(
        arguments.devices, arguments.cores, arguments.target, arguments.body, arguments.content_type, arguments.accept
    )
    with model_folder(arguments.model_dir, environ) as (own, settings):
        planning = Planning(settings, own, {**environ, **own}, wishes, _say)
        planned = await planning.run()
        chosen = settings_lines(planned.plan.recommended.deployment.candidate, environ)
        if not arguments.json:
            _print(out, _plan_text(planned, chosen))
        verified = await planning.verify(planned) if arguments.verify else []
    if arguments.json:
        found = as_json(planned.plan, planned.profile, planned.sample, planned.machine, chosen, verified)
        _print(out, [json.dumps(found, indent=1)])
    elif verified:
        _print(out, _verified_text(verified, planned.machine))


def _plan_text(planned: Planned, chosen: list[str]) -> Iterator[str]:
    yield from measured_lines(planned.profile, planned.sample, planned.machine)
    yield from noise_lines(planned.foreign_cores)
    yield ""
    yield from plan_lines(planned.plan)
    if planned.finals:
        yield "the CPU bounds these, and no prediction can tell them apart: the engine itself decided"
        yield from (final_line(each.prediction, each.measured) for each in planned.finals)
    yield ""
    yield "settings to paste:" if chosen else "settings to paste: none, the defaults are the best that was found"
    yield from (f"  {line}" for line in chosen)


def _verified_text(verified: list[Verified], machine: Machine) -> Iterator[str]:
    yield ""
    there = f" on the {machine.cores_at_hand} cores that are there" if machine.cores != machine.cores_at_hand else ""
    yield f"measured with the engine itself{there}:"
    yield from verified_lines(verified)
    yield from noise_lines(max(each.measured.foreign_cores for each in verified))


def _print(out: TextIO, lines: Iterator[str] | list[str]) -> None:
    for line in lines:
        out.write(f"{line}\n")
    out.flush()


def _say(text: str) -> None:
    """What is being done, on standard error, where people look and programs do not."""
    sys.stderr.write(f"plan: {text}\n")
    sys.stderr.flush()


@contextmanager
def own_output(log: Path | None, *, errors_too: bool = False) -> Iterator[TextIO]:
    """Keep standard output for the command: every other process, and whatever else writes there, gets the log.

    Args:
        log: A file; None: what is printed there is lost.
        errors_too: Whether standard error goes there as well, for a command that says nothing meanwhile.
    """
    try:
        target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    except OSError as error:
        raise SettingsError(f"--log {log} cannot be written: {error.strerror}") from None
    sys.stdout.flush()
    errors = os.dup(2)
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(target, 1)
        if errors_too:
            os.dup2(target, 2)
        os.close(target)
        try:
            yield out
        finally:
            out.flush()
            os.dup2(out.fileno(), 1)
            os.dup2(errors, 2)
            os.close(errors)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number from 1")
    return int(text)
