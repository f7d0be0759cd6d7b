"""What a training tells while it runs: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time

_BAR_CELLS = 24
_LINE_EVERY_S = 30.0
_SMOOTHING = 0.98  # of the loss that is shown: single batches jump about


class ProgressBar:
    """Follows one network's steps."""

    def __init__(self, network: str, step: int, steps: int) -> None:
        """Start at a step, which is more than 0 where a training is resumed."""
        self._network, self._first, self._steps = network, step, steps
        self._started = time.monotonic()
        self._last_line = -_LINE_EVERY_S
        self._terminal = sys.stdout.isatty()
        self._loss: float | None = None

    def advance(self, step: int, loss: float) -> None:
        """Take in a step's loss, and show it where it is time to."""
        self._loss = loss if self._loss is None else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        elapsed = time.monotonic() - self._started
        text = describe(self._network, step, self._steps, step - self._first, elapsed, self._loss)
        if self._terminal:
            print(f"\r\x1b[K{text}", end="\n" if step == self._steps else "", flush=True)
        elif elapsed - self._last_line >= _LINE_EVERY_S or step == self._steps:
            self._last_line = elapsed
            print(text, flush=True)


def describe(network: str, step: int, steps: int, taken: int, elapsed_s: float, loss: float) -> str:
    """One line: how far, how good, and how long it will take at the pace of this run.

    Args:
        network: its name.
        step: steps done in all.
        steps: steps to do in all.
        taken: of those done, in this run.
        elapsed_s: seconds that these took.
        loss: a smoothed loss.
    """
    filled = _BAR_CELLS * step // steps
    left_s = round(elapsed_s / taken * (steps - step)) if taken else 0
    left = f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02}"
    return f"{network:8} [{'#' * filled}{'.' * (_BAR_CELLS - filled)}] {step}/{steps}  loss {loss:.4f}  {left} left"
