"""What the GPU benchmark found: rows, as a table in Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: What ran.
        precision: In which number format.
        batch_size: Items in one call of a network, at most.
        images_per_second: Median of the samples.
        limit_per_second: What the device does with the same work and nothing around it; None where that says nothing.
        note: What else should be known.
    """

    what: str
    precision: str
    batch_size: int
    images_per_second: float
    limit_per_second: float | None = None
    note: str = ""

    @property
    def share(self) -> float | None:
        """Of the limit."""
        return self.images_per_second / self.limit_per_second if self.limit_per_second else None


@dataclass
class Section:
    """A part of the benchmark.

    Attributes:
        name: As on the command line.
        title: What it shows.
        rows: Its figures.
        notes: What else was found.
        error: Why it stopped; "" where it did not.
        seconds: How long it took.
    """

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    def markdown(self) -> str:
        """The section as a table."""
        lines = [f"### {self.title}", ""]
        if self.rows:
            lines += ["| | number format | batch | images/s | limit | share | |", "|---|---|--:|--:|--:|--:|---|"]
        for row in self.rows:
            limit = f"{row.limit_per_second:.1f}" if row.limit_per_second else ""
            share = f"{row.share:.2f}" if row.share is not None else ""
            figures = f"{row.batch_size} | {row.images_per_second:.1f} | {limit} | {share}"
            lines.append(f"| {row.what} | {row.precision} | {figures} | {row.note} |")
        lines += [f"\n{note}" for note in self.notes]
        if self.error:
            lines.append(f"\nStopped: {self.error}")
        return "\n".join(lines) + "\n"


def write_report(folder: Path, about: Mapping[str, str], sections: list[Section]) -> str:
    """Write `gpu.md` and `gpu.json` into a folder; the Markdown."""
    head = ["## GPU", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    text = "\n".join([*head, *(section.markdown() for section in sections)])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.md").write_text(text)
    content: dict[str, Any] = {"about": dict(about), "sections": [asdict(section) for section in sections]}
    (folder / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")
    return text
