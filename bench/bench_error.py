"""The one kind of failure that the benchmark reports: a line for the person who started it."""

from __future__ import annotations


class BenchError(Exception):
    """Something is missing, was asked for wrongly or did not start; the text is one line and says what."""
