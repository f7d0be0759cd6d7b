"""The plot of the costs: what an inference costs, and how long it takes, by instance type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cost_table import CostLine
from deploy_error import Invalid

_BLUE, _PALE, _ORANGE, _GREY = "#2f6fb0", "#9fc3e4", "#d9792b", "#8a8f98"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "grid.color": "#e6e8eb",
    "legend.frameon": False,
    "svg.hashsalt": "costs",  # the same figures give the same file
}
_BAR = 0.36


def write_plot(lines: Sequence[CostLine], goal_ms: float | None, source: str, path: Path) -> None:
    """Draw two panels, a row for each measurement, and write them in the format that the path's suffix names.

    Args:
        lines: From the top.
        goal_ms: Drawn as a line; None: there is none.
        source: Whose prices.
        path: The file.

    Raises:
        Invalid: without matplotlib, or where the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise Invalid("--plot needs matplotlib: pip install 'matplotlib>=3.9'") from error
    matplotlib.use("agg")  # before pyplot looks for a display
    from matplotlib import pyplot as plt

    rows = range(len(lines))
    with plt.rc_context(_STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 1.3 + 0.5 * len(lines)), sharey=True, layout="constrained")
        colours = [_GREY if line.measured.at_best else _BLUE for line in lines]
        left.barh(rows, [line.usd_per_100k or 0.0 for line in lines], 0.6, color=colours)
        for row, line in enumerate(lines):
            text = " no price" if line.usd_per_100k is None else f" {line.usd_per_100k:.2f}"
            left.text(line.usd_per_100k or 0.0, row, f" at best{text}" if line.measured.at_best else text, va="center")
        left.set(title="USD for 100,000 inferences under full load", xlabel=f"prices: {source}")
        left.set_yticks(rows, [line.measured.instance for line in lines])
        left.invert_yaxis()
        left.margins(x=0.2)
        right.barh(
            [row - _BAR / 2 for row in rows],
            [line.measured.first_ms or 0.0 for line in lines],
            _BAR,
            color=_PALE,
            label="first",
        )
        right.barh(
            [row + _BAR / 2 for row in rows],
            [line.measured.mean_ms or 0.0 for line in lines],
            _BAR,
            color=_BLUE,
            label="average",
        )
        for row, line in enumerate(lines):
            if line.measured.first_ms is None and line.measured.mean_ms is None:
                right.text(0.0, row, " not measured", va="center")
        if goal_ms is not None:
            right.axvline(goal_ms, color=_ORANGE, label=f"goal {goal_ms:g} ms")
        right.set(title="latency, ms")
        right.legend()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except (OSError, ValueError) as error:
            raise Invalid(f"--plot {path}: {error}") from error
        finally:
            plt.close(figure)
