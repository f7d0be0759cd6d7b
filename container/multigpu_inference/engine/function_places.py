"""Where each function of the script runs: set by `MULTIGPU_PREPROCESS`, or found out with one request (`place_finder`).

`predict_fn` always runs in a replica worker. `input_fn` and `output_fn` run in the pool unless they cannot leave it.
"""

from __future__ import annotations

from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN, TRANSFORM_FN, ScriptInfo


class FunctionPlaces:
    """The functions before, on and after the replica, once they are known.

    Attributes:
        unknown: Whether the next request has to find them out.
        before: Functions that run in the pool first: `input_fn` or none.
        on_replica: Functions that run in a replica worker.
        after: Functions that run in the pool last: `output_fn` or none.
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
        if TRANSFORM_FN in script.functions:
            self._settle_steps((), (TRANSFORM_FN,), ())
        elif preprocess == "replica" or script.import_error:
            self.settle(input_in_pool=False, output_in_pool=False)
        else:
            self.settle(input_in_pool=True, output_in_pool=True)
            self.unknown = preprocess == "auto"

    @property
    def use_pool(self) -> bool:
        """Whether anything runs, or may turn out to run, in the pool."""
        return self.unknown or bool(self.before or self.after)

    def settle(self, *, input_in_pool: bool, output_in_pool: bool) -> None:
        """Fix where the functions run."""
        self._settle_steps(
            (INPUT_FN,) if input_in_pool else (),
            ((() if input_in_pool else (INPUT_FN,)) + (PREDICT_FN,) + (() if output_in_pool else (OUTPUT_FN,))),
            (OUTPUT_FN,) if output_in_pool else (),
        )
        self.unknown = False

    def add_tensors(self, on_device: frozenset[str], all_seen: frozenset[str]) -> None:
        """Keep where a trial saw tensors; another structure of the data adds to what is known of the others."""
        self.device_paths |= on_device
        self.tensor_paths = (self.tensor_paths or frozenset()) | all_seen

    def _settle_steps(self, before: tuple[str, ...], on_replica: tuple[str, ...], after: tuple[str, ...]) -> None:
        self.before, self.on_replica, self.after = before, on_replica, after
