"""Where each function of the script runs: set by `MULTIGPU_PREPROCESS`, or found out with one request (`place_finder`).

`predict_fn` always runs in a replica worker. `input_fn` and `output_fn` run in the pool unless they cannot leave it, or unless
they are so quick that bringing them there costs more than they do. That shows with time, and may change: it is watched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from multigpu_inference import log
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN, TRANSFORM_FN, ScriptInfo

_FUNCTIONS = {"preprocess_ms": INPUT_FN, "postprocess_ms": OUTPUT_FN}  # by the hop that they are timed as
# Handing an object to another process takes both of them together about 0.2 ms. A function that takes less on average than the
# first figure comes to the replica worker, which is then busy with it for no longer than with reading what the pool would send;
# beyond the second it goes back.
_STAYS_BELOW_MS, _LEAVES_ABOVE_MS = 0.1, 0.2
_WEIGHT = 1 / 32  # of a new time in the average


class Steps(NamedTuple):
    """The functions of a request, in order.

    Attributes:
        before: Functions that run in the pool first: `input_fn` or none.
        on_replica: Functions that run in a replica worker.
        after: Functions that run in the pool last: `output_fn` or none.
    """

    before: tuple[str, ...]
    on_replica: tuple[str, ...]
    after: tuple[str, ...]


class FunctionPlaces:
    """Where the functions run, once that is known.

    Attributes:
        unknown: Whether the next request has to find them out.
        steps: What a request that begins now goes through.
        device_paths: Tensors of `input_fn`'s results that the script had put on its device (`structure`).
        tensor_paths: All tensors that were seen in its results; None where nobody has looked.
    """

    def __init__(self, preprocess: str, script: ScriptInfo) -> None:
        """Settle what needs no trial.

        Args:
            preprocess: auto, pool or replica.
            script: What the probe found.
        """
        self.device_paths: frozenset[str] = frozenset()
        self.tensor_paths: frozenset[str] | None = None
        self.unknown = False
        # Not with stages: their replica worker runs several requests at a time, and a function that was found to be safe in a
        # process that runs one need not be so there.
        self._watches = preprocess == "auto" and script.stages == 1
        self._can_leave: dict[str, bool] = {}
        self._average_ms: dict[str, float] = {}
        if TRANSFORM_FN in script.functions:
            self.steps = Steps((), (TRANSFORM_FN,), ())
        elif preprocess == "replica" or script.import_error:
            self.settle(input_in_pool=False, output_in_pool=False)
        else:
            self.settle(input_in_pool=True, output_in_pool=True)
            self.unknown = preprocess == "auto"

    @property
    def use_pool(self) -> bool:
        """Whether anything runs, or may turn out to run, in the pool."""
        return self.unknown or any(self._can_leave.values())

    def settle(self, *, input_in_pool: bool, output_in_pool: bool) -> None:
        """Fix where the functions can run."""
        self._can_leave = {INPUT_FN: input_in_pool, OUTPUT_FN: output_in_pool}
        self._average_ms.clear()
        self._place(self._can_leave)
        self.unknown = False

    def add_tensors(self, on_device: frozenset[str], all_seen: frozenset[str]) -> None:
        """Keep where a trial saw tensors; another structure of the data adds to what is known of the others."""
        self.device_paths |= on_device
        self.tensor_paths = (self.tensor_paths or frozenset()) | all_seen

    def note(self, spans: Iterable[tuple[str, float, float, int]]) -> None:
        """Watch how long functions take, and move one that can run in both places where that has become worth it."""
        if not self._watches or self.unknown:
            return
        for name, started, ended, _ in spans:
            function = _FUNCTIONS.get(name)
            if function is not None and self._can_leave.get(function):
                self._watch(function, (ended - started) * 1e3)

    def _watch(self, function: str, milliseconds: float) -> None:
        # The average begins high: the first calls of a function take longer than later ones, and moving it has time.
        average = self._average_ms.get(function, 10 * _LEAVES_ABOVE_MS)
        # A slow call moves a function back at once, and keeps it there for a hundred quick ones; a very slow one for no longer.
        average += _WEIGHT * (min(milliseconds, 50 * _LEAVES_ABOVE_MS) - average)
        self._average_ms[function] = average
        in_pool = function in (*self.steps.before, *self.steps.after)
        if in_pool and average < _STAYS_BELOW_MS:
            self._move(function, in_pool=False, average_ms=average)
        elif not in_pool and average > _LEAVES_ABOVE_MS:
            self._move(function, in_pool=True, average_ms=average)

    def _move(self, function: str, *, in_pool: bool, average_ms: float) -> None:
        places = {INPUT_FN: bool(self.steps.before), OUTPUT_FN: bool(self.steps.after)}
        self._place(places | {function: in_pool})
        place = "pool" if in_pool else "replica"
        because = f"it takes {average_ms:.2f} ms on average, handing over to the pool about {_LEAVES_ABOVE_MS:g}"
        log.event("function_moved", function=function, runs_in=place, because=because)

    def _place(self, in_pool: dict[str, bool]) -> None:
        self.steps = Steps(
            (INPUT_FN,) if in_pool[INPUT_FN] else (),
            (() if in_pool[INPUT_FN] else (INPUT_FN,)) + (PREDICT_FN,) + (() if in_pool[OUTPUT_FN] else (OUTPUT_FN,)),
            (OUTPUT_FN,) if in_pool[OUTPUT_FN] else (),
        )
