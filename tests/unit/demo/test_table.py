"""The demo's table."""

from __future__ import annotations

from answer import Answer
from table import format_answers


def answer(photo: str, attributes: dict[str, str]) -> Answer:
    return Answer(photo, "matte", 200, attributes, 1234.5, b"")


def test_rows_show_replica_and_milliseconds_in_aligned_columns() -> None:
    first = answer("a.jpg", {"request_id": "x", "replica": "0", "queue_ms": "0.2", "stage_1_ms": "99.6"})
    second = answer("long-name.jpg", {"request_id": "y", "replica": "1", "queue_ms": "12"})
    assert format_answers([first, second]).splitlines() == [
        "photo          answer  status  replica  queue  stage 1  total ms",
        "─────────────  ──────  ──────  ───────  ─────  ───────  ────────",
        "a.jpg          matte      200        0      0      100      1234",
        "long-name.jpg  matte      200        1     12        -      1234",
    ]
