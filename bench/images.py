"""3,000 pictures, or a folder or an S3 prefix of them, through 1, 2, 4, 8 … workers: `python -m bench images`.

Each number of workers is one start of the whole container with so many replicas and preprocessing processes. Results are
written, what is done is kept in a journal, and a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import image_report, provenance
from bench.bench_error import BenchError
from bench.image_figures import ImageFigures, image_figures, image_table
from bench.image_model import find_model
from bench.image_outcome import Outcome
from bench.image_results import open_results
from bench.image_run import ImageRun, run_images
from bench.image_source import open_source
from bench.progress import say
from bench.result import write_json
from bench.workload import ROOT

STATE = ROOT / "build" / "bench" / "images"
_COUNT = 3000
_FAILURES_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser, positive: Callable[[str], int], assignment: Callable[[str], object]) -> None:
    """The command's arguments.

    Args:
        parser: Takes them.
        positive: Reads a whole number from 1.
        assignment: Reads NAME=VALUE.
    """
    parser.set_defaults(do=run)
    parser.add_argument("--source", metavar="WHERE", help="a folder or s3://BUCKET/PREFIX (a seeded set that is made here)")
    parser.add_argument("--count", type=positive, default=_COUNT, metavar="N", help=f"pictures of the seeded set ({_COUNT})")
    parser.add_argument(
        "--model",
        default="matting",
        metavar="MODEL",
        help="a workload that takes pictures, a model folder, or a script (matting)",
    )
    parser.add_argument(
        "--workers",
        type=lambda text: tuple(positive(word) for word in text.split(",")),
        default=(1, 2, 4, 8),
        metavar="N,…",
        help="replicas, one run for each number (1,2,4,8); beyond the GPUs they wrap around",
    )
    parser.add_argument("--preprocess", type=positive, metavar="N", help="processes that transform (as many as workers)")
    parser.add_argument("--devices", type=positive, metavar="N", help="simulated devices (as many as workers)")
    parser.add_argument("--ordered", action="store_true", help="tell results in the pictures' order, not as they come")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--output", metavar="WHERE", help="results: a folder or s3://BUCKET/PREFIX (STATE/results)")
    output.add_argument("--no-output", action="store_true", help="drop the results")
    parser.add_argument(
        "--state", type=Path, default=STATE, metavar="FOLDER", help="journals, logs, table and plots (build/bench/images)"
    )
    parser.add_argument("--restart", action="store_true", help="do everything anew")
    parser.add_argument("--accept", metavar="TYPE", help="what is asked for")
    parser.add_argument("--set", type=assignment, action="append", default=[], metavar="NAME=VALUE", help="a container setting")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command; 1 where a picture failed."""
    what = _image_run(arguments)
    several: list[ImageFigures] = []
    failed: list[Outcome] = []
    for workers in arguments.workers:
        try:
            content = run_images(what, workers)
        except KeyboardInterrupt:
            say("stopped; the same command goes on where this one was")
            raise
        several.append(image_figures(content, workers, what.preprocess or workers))
        failed += content.failed
        for line in failure_lines(content.failed, what.journal(workers)):
            print(line, file=sys.stderr)
    print(image_table(several))
    data = {
        "date": provenance.now(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "command": shown(shlex.join(["python", "-m", "bench", *sys.argv[1:]])),
        "source": shown(what.source.where),
        "model": shown(what.model.where),
        "runs": [asdict(each) for each in several],
    }
    write_json(what.state / "images.json", data)
    image_report.write(data, several, what.state / "images.html")
    print(shown(f"\nthe report: {what.state / 'images.html'}, its figures: {what.state / 'images.json'}"))
    return 1 if failed else 0


def shown(text: str) -> str:
    """A path that is not UTF-8 is shown all the same."""
    return text.encode(errors="backslashreplace").decode()


def failure_lines(failed: Sequence[Outcome], journal: Path) -> list[str]:
    """The first few failures, for people: any name is one line of text that every terminal takes."""
    lines = [f"  {outcome.name!a}: {outcome.error}" for outcome in failed[:_FAILURES_SHOWN]]
    if failed:
        lines.insert(0, f"{len(failed)} failed; the same command tries them again, {journal} has them all:")
    return lines


def _image_run(arguments: argparse.Namespace) -> ImageRun:
    """What was asked for, checked: whatever cannot be is told before anything starts."""
    model = find_model(arguments.model)
    state: Path = arguments.state
    output = None if arguments.no_output else arguments.output or str(state / "results")
    source = open_source(arguments.source, arguments.count, model.picture_size, output, state)
    if source.left_out:
        print(f"{source.left_out} files of {source.where} are no pictures by their names: left out", file=sys.stderr)
    if arguments.devices is not None and not model.simulated:
        raise BenchError(f"--devices is for simulated ones, which {model.where} has none of")
    results = open_results(output)
    results.check()
    return ImageRun(
        source=source,
        model=model,
        results=results,
        state=state,
        accept=model.accept if arguments.accept is None else arguments.accept,
        ordered=arguments.ordered,
        restart=arguments.restart,
        preprocess=arguments.preprocess,
        devices=arguments.devices,
        extra=dict(arguments.set),
    )
