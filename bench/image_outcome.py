"""One picture on its way through a run: read, answered, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass


class PictureError(Exception):
    """This picture cannot be read, answered or written; the text is one line. The run goes on with the others."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is sent.

    Attributes:
        name: Relative to its source, with `/` between folders.
        body: Its file.
        content_type: By the name's ending.
    """

    name: str
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What the container made of it.

    Attributes:
        name: The picture's.
        body: The answer.
        content_type: Of the answer.
        transformation_ms: How long `input_fn` took; None where the container did not say.
        inference_ms: How long the model took, in all its stages.
    """

    name: str
    body: bytes
    content_type: str
    transformation_ms: float | None = None
    inference_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a picture, as the journal keeps it.

    Attributes:
        name: The picture's.
        result: The result's name where it was written; None where results are dropped, or there is none.
        error: Why there is none, in one line; None where there is.
        transformation_ms: As of `Answered`.
        inference_ms: As of `Answered`.
    """

    name: str
    result: str | None = None
    error: str | None = None
    transformation_ms: float | None = None
    inference_ms: float | None = None
