"""What inferences cost on which instance type: measurements and prices in, a table, a plot and the cheapest type out.

    python deploy/costs.py measurements.json --goal-ms 500 --plot costs.svg
    python deploy/costs.py matting.json --instance ml.g6.12xlarge        what `python -m bench run matting --json` wrote there
    python deploy/costs.py build/bench/gpu/gpu.json --instance ml.g6.12xlarge

A file of measurements is a JSON list of objects:

    [{"instance": "ml.g6.12xlarge", "first_ms": NUMBER or null, "mean_ms": NUMBER or null, "throughput_per_s": NUMBER,
      "source": "what was sent, how many in flight, from where", "date": "YYYY-MM-DD"}]

`first_ms` is the latency of the first request after the endpoint came into service, `mean_ms` the average of one request at
a time, `throughput_per_s` what one instance answers under full load. Nothing is estimated but one thing, which the table marks:
the GPU benchmark measures one GPU without server, decoding and encoding, so that figure times the number of GPUs is what a
type reaches at best.

Prices are AWS's own where they can be asked, else those of `instance_types.py`, with their date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from account import Account, open_session
from cost_measurement import CostMeasurement, read_measurements
from cost_plot import write_plot
from cost_table import conclusions, cost_lines, cost_table
from deploy_error import DeployError
from instance_types import INSTANCE_TYPES, PRICES_AS_OF
from positive_number import positive_number
from price import find_prices

_DEFAULT_REGION = "us-east-1"
# Wide enough for every line: a table in a file or a pipe is not to be wrapped.
_WIDTH = 240


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code: 0, 2 where a file or an argument is not allowed."""
    arguments = _parser().parse_args(argv)
    try:
        measured = [
            each for path in arguments.files for each in read_measurements(path, arguments.instance, arguments.workload)
        ]
        prices, source = _prices(measured, arguments)
        lines = cost_lines(measured, prices)
        if arguments.plot is not None:
            write_plot(lines, arguments.goal_ms, source, arguments.plot)
    except DeployError as error:
        print(f"costs: {error}", file=sys.stderr)
        return error.exit_code
    said = [] if arguments.goal_ms is None else conclusions(lines, arguments.goal_ms)
    if arguments.json:
        print(json.dumps({"prices": source, "lines": [asdict(line) for line in lines], "conclusions": said}, indent=1))
        return 0
    Console(width=_WIDTH, highlight=False).print(cost_table(lines))
    for text in (f"prices: {source}; a line is one instance, busy all the time", *said):
        print(text)
    return 0


def _prices(measured: Sequence[CostMeasurement], arguments: argparse.Namespace) -> tuple[dict[str, float], str]:
    if arguments.offline:
        table = {name: kind.usd_per_hour for name, kind in INSTANCE_TYPES.items() if kind.usd_per_hour is not None}
        return table, f"table of {PRICES_AS_OF}, us-east-1; second-hand"
    session = open_session(arguments.profile, arguments.region)
    types = tuple(dict.fromkeys(each.instance for each in measured))
    return find_prices(Account(session), session.region_name or _DEFAULT_REGION, types)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="measurements, or a benchmark's JSON")
    parser.add_argument("--instance", default="", metavar="TYPE", help="the type that a benchmark ran on")
    parser.add_argument("--workload", default="matting", help="of a benchmark's file (default matting)")
    parser.add_argument(
        "--goal-ms", type=positive_number, help="average latency that is wanted: names the cheapest that has it"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .svg, .png, .pdf")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--offline", action="store_true", help="do not ask AWS for prices")
    parser.add_argument("--profile", help="of ~/.aws/config; default: AWS_PROFILE")
    parser.add_argument("--region", help="default: AWS_REGION, AWS_DEFAULT_REGION, the profile's; else us-east-1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
