from __future__ import annotations

import time

import pytest

from multigpu_inference.engine.pool_worker import run_within_memory
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.errors import BadRequest, FunctionFailed, PayloadTooLarge, ServingError
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, Invocation, Task


class Failing(ScriptRunner):
    """Every task fails with one error, raised from another."""

    def __init__(self, error: BaseException, cause: BaseException | None = None) -> None:
        self._failure = error
        self._failure.__cause__ = cause

    def run(self, *_: object) -> None:  # type: ignore[override]
        raise self._failure


def outcome(function: str, error: BaseException, cause: BaseException | None = None) -> BaseException:
    now = time.monotonic()
    task = Task(0, (function,), Invocation("id", "a/b", "*/*", {}, now, now + 60))
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - whichever
        run_within_memory(Failing(error, cause), task, [b""])
    return raised.value


@pytest.mark.parametrize("failed", [(FunctionFailed(), MemoryError()), (MemoryError(),)])
def test_input_that_needs_too_much_memory_is_the_clients_affair_and_nothing_of_it_is_kept(
    failed: tuple[BaseException, ...],
) -> None:
    error = outcome(INPUT_FN, *failed)
    assert isinstance(error, PayloadTooLarge)
    assert "MULTIGPU" not in error.message
    assert "MULTIGPU_PREPROCESS_MEMORY_MB" in error.detail
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize(
    ("function", "error", "cause"),
    [
        (OUTPUT_FN, FunctionFailed(), MemoryError()),
        (INPUT_FN, FunctionFailed(), ValueError("too large")),
        (INPUT_FN, BadRequest(), None),
        (INPUT_FN, BadRequest(), MemoryError()),  # the script has made an answer of it
    ],
)
def test_everything_else_is_what_it_was(function: str, error: ServingError, cause: BaseException | None) -> None:
    assert outcome(function, error, cause) is error
