"""The page of a run over several numbers of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench import plots
from bench.image_figures import TITLES, ImageFigures, image_rows
from bench.report import document, picture, table


def write(about: Mapping[str, Any], several: Sequence[ImageFigures], path: Path) -> None:
    """Write it: what was run, where and when (as in `images.json`), and its figures."""
    machine = about["machine"]
    parts = [
        f"<h1>{several[0].pictures} pictures by workers</h1>",
        f"<p class=quiet>{escape(about['date'])} · commit {escape(about['commit'] or 'unknown')} · {machine['cores']} cores, "
        f"{escape(machine['cpu'])} · model {escape(about['model'])} · {escape(about['source'])}<br>"
        f"<code>{escape(about['command'])}</code></p>",
        picture(plots.by_workers(several), "Total time, speed-up and medians by workers"),
        table(TITLES, image_rows(several)),
    ]
    path.write_text(document("Pictures by workers", parts))
