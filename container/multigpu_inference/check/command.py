"""`check MODEL_DIR`: from the command line to what is printed, and to the exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from multigpu_inference.check.checking import check
from multigpu_inference.check.report import report
from multigpu_inference.errors import StartupError
from multigpu_inference.planner.command import INTERRUPTED, add_request_arguments, own_output
from multigpu_inference.planner.model_folder import model_folder

NOT_ANSWERED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR", help="a folder with code/inference.py, or with a model.pt")
    add_request_arguments(parser)
    parser.add_argument("--log", type=Path, metavar="FILE", help="where what the script and its processes print goes (nowhere)")


def run(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> int:
    """Carry out the command; its exit code: 0, 1 where the request is not answered, 2 and 3 as the container's."""
    try:
        with tempfile.TemporaryDirectory(prefix="check-") as folder:
            log = arguments.log or Path(folder, "log")
            with own_output(log, errors_too=True) as out, model_folder(arguments.model_dir, environ) as (own, settings):
                checked = asyncio.run(
                    check(settings, {**environ, **own}, arguments.body, arguments.content_type, arguments.accept, log)
                )
                out.writelines(f"{line}\n" for line in report(checked))
    except StartupError as error:
        print(f"check: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0 if checked.works else NOT_ANSWERED
