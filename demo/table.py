"""The demo's table of answers, as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from answer import Answer


def format_answers(answers: Sequence[Answer]) -> str:
    """One row per answer: photo, what was asked for, status, replica, milliseconds per hop and in all."""
    hops = list(dict.fromkeys(name for answer in answers for name in answer.attributes if name.endswith("_ms")))
    titles = ["photo", "answer", "status", "replica"]
    titles += [hop.removesuffix("_ms").replace("_", " ") for hop in hops] + ["total ms"]
    rows = [
        [
            answer.photo,
            answer.kind,
            str(answer.status),
            answer.attributes.get("replica", "?"),
            *(_whole(answer.attributes.get(hop)) for hop in hops),
            f"{answer.total_ms:.0f}",
        ]
        for answer in answers
    ]
    return format_table(titles, rows, words=2)


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """Align columns: the first `words` of them to the left, the others, numbers, to the right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = [titles, ["─" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _whole(milliseconds: str | None) -> str:
    try:
        return f"{float(milliseconds or ''):.0f}"
    except ValueError:
        return "-"
