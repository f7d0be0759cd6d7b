"""What a figure is to reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of a row is to reach.

    Attributes:
        figure: Such as `ratio`, an attribute of the result.
        bound: The least, or the most, that is good enough.
        at_least: Whether more is better.
    """

    figure: str
    bound: float
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound

    def text(self) -> str:
        """Such as `ratio ≥ 0.96`."""
        return f"{self.figure.replace('_', ' ')} {'≥' if self.at_least else '≤'} {self.bound:g}"
