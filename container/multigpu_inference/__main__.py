"""`python -m multigpu_inference`: commands for the person who deploys a model. Serving is `entrypoint.py serve`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

import psutil

from multigpu_inference import process
from multigpu_inference.check import command as check
from multigpu_inference.export import command as export
from multigpu_inference.planner import command as plan

_LAST_S = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code.

    0; 1 where `check`'s request is not answered, or an export differs; 2 where an argument or a setting is not allowed; 3 where
    the model does not load.
    """
    parser = argparse.ArgumentParser(prog="python -m multigpu_inference")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("check", check, "run a model's functions once where they would run, and say what will be parallel"),
        ("export", export, "make a model's networks files for another runtime, and compare them with PyTorch"),
        ("plan", plan, "measure a model, predict placements, recommend settings"),
    ):
        subparser = commands.add_parser(name, help=text)
        subparser.set_defaults(run=command.run)
        command.add_arguments(subparser)
    chosen = parser.parse_args(arguments)
    # As Ctrl-C: leave through the blocks that end what was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process.adopt_orphans()
    try:
        code: int = chosen.run(chosen)
    finally:
        end_descendants()
    return code


def end_descendants() -> None:
    """End by force what is left of processes that user code started, whose parents have gone."""
    left = psutil.Process().children(recursive=True)
    for child in left:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(left, timeout=_LAST_S)


if __name__ == "__main__":
    sys.exit(main())
