"""`export MODEL_DIR`: from the command line to files, a table and an exit code.

The script's own process exports: user code runs here, as in a replica worker, and nothing else does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from multigpu_inference.errors import ModelError, SettingsError, StartupError
from multigpu_inference.export.comparison import Comparison, compare
from multigpu_inference.export.exportable import Exportable
from multigpu_inference.export.exporters import EXPORTERS
from multigpu_inference.one_line import one_line
from multigpu_inference.planner.command import INTERRUPTED, own_output
from multigpu_inference.planner.model_folder import model_folder

HOOK = "export_networks"
DIFFERS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR", help=f"a folder whose code/inference.py has {HOOK}()")
    parser.add_argument("--runtime", choices=tuple(EXPORTERS), default="onnx", help="what is to run the networks (onnx)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the files go (MODEL_DIR)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="where what the script and the exporters print goes (nowhere)")


def run(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> int:
    """Carry out the command; its exit code: 0, 1 where answers differ by too much, 2 and 3 as the container's."""
    out_dir = (arguments.out or arguments.model_dir).resolve()
    try:
        with own_output(arguments.log) as out, model_folder(arguments.model_dir, environ) as (_, settings):
            if not out_dir.is_dir() or not os.access(out_dir, os.W_OK):
                raise SettingsError(f"--out {out_dir}: it is no folder that can be written to")

            def say(line: str) -> None:
                out.write(f"{line}\n")
                out.flush()

            close = _export(_networks(settings), arguments.runtime, out_dir, say)
    except StartupError as error:
        print(f"export: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0 if close else DIFFERS


def _networks(settings: Any) -> Mapping[str, Exportable]:
    from multigpu_inference.user_module import UserModule

    script = UserModule.load(settings.model)
    hook = script.attribute(HOOK)
    if hook is None:
        raise ModelError(f"{settings.model.program} has no {HOOK}(model_dir), which returns an Exportable for each file's name")
    try:
        networks = dict(hook(str(settings.model.model_dir)))
    except Exception as error:
        raise ModelError(f"{HOOK} failed: {one_line(error)}") from error
    for name, network in networks.items():
        if not isinstance(network, Exportable):
            raise ModelError(f"{HOOK} returned {type(network).__name__} for {name!r}, and not an Exportable")
    return networks


def _export(networks: Mapping[str, Exportable], runtime: str, folder: Path, say: Callable[[str], None]) -> bool:
    """Export and compare one after another; whether all are close."""
    ending, exporter = EXPORTERS[runtime]
    say(f"{'file':24} {'largest difference':>18} {'allowed':>8} {'eager ms':>9} {'exported ms':>11}")
    close = True
    for name, exportable in networks.items():
        path = folder / f"{name}{ending}"
        new = path.with_name(f"new-{path.name}")
        try:
            exporter(exportable, new)
            found = _compared(name, exportable, new)
            say(_row(path.name, found))
            if found.is_close:
                new.replace(path)
                say(f"{path.name} has these weights from now on: export it again where they change")
            close = close and found.is_close
        finally:
            new.unlink(missing_ok=True)
    return close


def _compared(name: str, exportable: Exportable, path: Path) -> Comparison:
    try:
        return compare(name, exportable, path)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{name} cannot be compared with eager PyTorch: {one_line(error)}") from error


def _row(file: str, found: Comparison) -> str:
    times = f"{found.eager_ms:9.1f} {found.exported_ms:11.1f}"
    verdict = "" if found.is_close else "  TOO FAR: not kept"
    return f"{file:24} {found.difference:18.2g} {found.tolerance:8.2g} {times}{verdict}"
