"""The user's script: found by its path, imported under its own name, called as SageMaker's toolkits call it.

Runs in the probe, in the fetch worker, in pool workers and in replica workers; never in the engine or a front-end worker. A
function that has one parameter more than its contract gets a `Context` as well. One that is missing does what the PyTorch
toolkit does (`toolkit_defaults`); so does a model folder without a script.
"""

from __future__ import annotations

import dis
import importlib.util
import inspect
import os
import sys
from types import CodeType, ModuleType
from typing import Any

from multigpu_inference import content_type as types
from multigpu_inference import toolkit_defaults
from multigpu_inference.config import DEFAULT_PROGRAM, ModelSettings
from multigpu_inference.context import Context
from multigpu_inference.encoding import ENCODED, encode
from multigpu_inference.errors import (
    BadRequest,
    FunctionFailed,
    ModelError,
    ScriptImportError,
    ServingError,
    UnsupportedMediaType,
    from_status,
)
from multigpu_inference.messages import (
    FETCH_FN,
    INPUT_FN,
    OUTPUT_FN,
    PREDICT_FN,
    STOCK_ACCEPT,
    STOCK_ORDER,
    STORE_FN,
    TRANSFORM_FN,
    ScriptInfo,
)
from multigpu_inference.model_file import find_model_file
from multigpu_inference.one_line import one_line

MODEL_FN, SAMPLE_INPUT = "model_fn", "sample_input"
PRE_MODEL_FN, MODEL_WARMUP_FN = "pre_model_fn", "model_warmup_fn"  # around model_fn, in the same process
# Arguments by contract; a function with one more gets the context.
_ARGUMENTS = {
    **{MODEL_FN: 1, INPUT_FN: 2, PREDICT_FN: 2, OUTPUT_FN: 2, TRANSFORM_FN: 4, SAMPLE_INPUT: 0},
    **{FETCH_FN: 2, STORE_FN: 3, PRE_MODEL_FN: 1, MODEL_WARMUP_FN: 2},
}
_DEFAULTS = {name: getattr(toolkit_defaults, name) for name in (MODEL_FN, *STOCK_ORDER)}
# The toolkits hand over text for exactly these types, bytes for all others.
_TEXT_TYPES = ("application/json", "text/csv")


class UserModule:
    """The imported script."""

    def __init__(self, module: ModuleType) -> None:
        """Look up the functions; `ModelError` where one that is needed is missing or does not fit its contract."""
        self._module = module
        self._functions = {name: function for name in _ARGUMENTS if callable(function := getattr(module, name, None))}
        self._refuse_contradictions()
        self._defaults = (_DEFAULTS.keys() if TRANSFORM_FN not in self._functions else {MODEL_FN}) - self._functions.keys()
        self._functions |= {name: _DEFAULTS[name] for name in self._defaults}
        self._takes_context = {name: self._wants_context(name) for name in self._functions}

    @classmethod
    def load(cls, settings: ModelSettings) -> UserModule:
        """Import the script by its path.

        The model folder becomes the working folder, and the code folder, with its `lib`, the first on `sys.path`, as in the
        stock container.

        Raises:
            ModelError: where there is neither a script nor a model that needs none.
            ScriptImportError: where importing it raises.
        """
        path = settings.script
        if not path.is_file():
            return cls._without_script(settings)
        os.chdir(settings.model_dir)
        # For what the script starts, too.
        folders = [str(settings.code_dir), *([str(lib)] if (lib := settings.code_dir / "lib").is_dir() else [])]
        sys.path[:0] = folders
        os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
        toolkit_defaults.offer_toolkit()
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None  # a .py file always has a spec and a loader
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Under its own name, so that objects of its classes can be pickled here and unpickled in another worker.
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            raise ScriptImportError(f"{path.name} cannot be imported: {one_line(error)}") from error
        return cls(module)

    @classmethod
    def _without_script(cls, settings: ModelSettings) -> UserModule:
        """What serves a model folder that has no script, with nothing but the toolkit's defaults."""
        missing = f"there is no {settings.script}: model.tar.gz must have the script in its code folder"
        if settings.program != DEFAULT_PROGRAM or not settings.model_dir.is_dir():
            raise ModelError(missing)
        try:
            find_model_file(settings.model_dir)
        except ModelError as error:
            raise ModelError(f"{missing}; {error}") from None
        os.chdir(settings.model_dir)
        return cls(ModuleType(settings.script.stem))

    @property
    def has_transform_fn(self) -> bool:
        """Whether the script answers with `transform_fn` instead of the three functions."""
        return TRANSFORM_FN in self._functions

    def info(self) -> ScriptInfo:
        """What the engine must know before it places anything; runs `sample_input()` where the script has one."""
        stages = getattr(self._module, "STAGES", 1)
        if not isinstance(stages, int) or isinstance(stages, bool) or not 1 <= stages <= 64:
            raise ModelError(f"{self._name}: STAGES is {stages!r}; allowed is a whole number from 1 to 64")
        accept = getattr(self._module, "DEFAULT_ACCEPT", None)
        if accept is not None and not isinstance(accept, str):
            raise ModelError(f"{self._name}: DEFAULT_ACCEPT is {accept!r}; allowed is a content type")
        return ScriptInfo(
            stages=int(stages),
            functions=frozenset(self._functions),
            defaults=frozenset(self._defaults),
            fetch_types=self._fetch_types(),
            default_accept=accept and str(accept),
            sample=self._sample(),
        )

    def attribute(self, name: str) -> Any:
        """Something else that the script has, or None."""
        return getattr(self._module, name, None)

    def call(self, function: str, context: Context, *arguments: Any) -> Any:
        """Call one of the script's functions, with `context` behind its arguments where it has room for it."""
        if self._takes_context[function]:
            arguments = (*arguments, context)
        return self._functions[function](*arguments)

    def load_model(self, context: Context) -> Any:
        """Run `pre_model_fn` where there is one, `model_fn`, and `model_warmup_fn` where there is one: the model.

        Raises:
            ModelError: what one of them raised.
        """
        model_dir = context.system_properties["model_dir"]
        where = "" if context.replica_id is None else f" on replica {context.replica_id}"

        def run(function: str, *arguments: Any) -> Any:
            if function not in self._functions:
                return None
            try:
                return self.call(function, context, *arguments)
            except BaseException as error:
                reason = str(error) if isinstance(error, ModelError) else one_line(error)
                raise ModelError(f"{function} failed{where}: {reason}") from error

        run(PRE_MODEL_FN, model_dir)
        model = run(MODEL_FN, model_dir)
        run(MODEL_WARMUP_FN, model_dir, model)
        return model

    def globals_assigned(self) -> list[str]:
        """Globals of the script that answering a request assigns, by a `global` statement in a function that it runs.

        Such a name carries something from one function to another, or from one request to the next, which only holds
        where all of them run in one process.
        """
        return sorted(set().union(*(self._globals(name)[0] for name in STOCK_ORDER)))

    def globals_from_model(self, function: str) -> list[str]:
        """Globals that `model_fn` assigns and a function reads, perhaps not with every request: only a replica has them."""
        return sorted(self._globals(MODEL_FN)[0] & self._globals(function)[1])

    def _globals(self, function: str) -> tuple[set[str], set[str]]:
        """The globals that a function, with the script's functions that it mentions, assigns, and those that it reads."""
        assigned, read, seen = set[str](), set[str](), set[CodeType]()
        # A default's globals are not the script's.
        todo = [None if function in self._defaults else getattr(self._functions.get(function), "__code__", None)]
        while todo:
            code = todo.pop()
            if code is None or code in seen:
                continue
            seen.add(code)
            for instruction in dis.get_instructions(code):
                if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                    assigned.add(str(instruction.argval))
                elif instruction.opname == "LOAD_GLOBAL":
                    read.add(str(instruction.argval))
            called = (getattr(vars(self._module).get(name), "__code__", None) for name in code.co_names)
            todo += [*called, *(constant for constant in code.co_consts if isinstance(constant, CodeType))]
        return assigned, read

    @property
    def _name(self) -> str:
        return f"{self._module.__name__}.py"

    def _fetch_types(self) -> frozenset[str] | None:
        types = getattr(self._module, "FETCH_TYPES", None)
        if types is None:
            return None
        if isinstance(types, str) or not all(isinstance(each, str) for each in types):
            raise ModelError(f"{self._name}: FETCH_TYPES is {types!r}; allowed is a tuple of content types")
        return frozenset(each.lower() for each in types)

    def _sample(self) -> tuple[bytes, str] | None:
        if SAMPLE_INPUT not in self._functions:
            return None
        try:
            body, content_type = self.call(SAMPLE_INPUT, Context())
            return bytes(memoryview(body.encode() if isinstance(body, str) else body)), str(content_type)
        except BaseException as error:
            raise ModelError(
                f"{self._name}: sample_input() must return a body and its content type: {one_line(error)}"
            ) from error

    def _wants_context(self, name: str) -> bool:
        try:
            parameters = inspect.signature(self._functions[name]).parameters.values()
        except (TypeError, ValueError):
            return False  # a callable written in C has no signature to read
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return False
        count = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        if not _ARGUMENTS[name] <= count <= _ARGUMENTS[name] + 1:
            raise ModelError(
                f"{self._name}: {name} has {count} parameters; its contract is {_ARGUMENTS[name]}, or one more for context"
            )
        return count == _ARGUMENTS[name] + 1

    def _refuse_contradictions(self) -> None:
        has, three = self._functions.keys(), set(STOCK_ORDER)
        if TRANSFORM_FN in has and has & three:
            raise ModelError(f"{self._name} has transform_fn and {', '.join(sorted(has & three))}: use one or the other")
        if TRANSFORM_FN in has and FETCH_FN in has:
            raise ModelError(f"{self._name} has transform_fn and fetch_fn: what was fetched is given to input_fn")
        if STORE_FN in has and FETCH_FN not in has:
            raise ModelError(f"{self._name} has store_fn and no fetch_fn: fetch_fn says what is stored, and where (Fetched)")
        if FETCH_FN in has and INPUT_FN not in has:
            raise ModelError(f"{self._name} has fetch_fn and no input_fn: what was fetched is given to input_fn")


def request_body(body: bytes | bytearray | memoryview, content_type: str) -> str | bytearray:
    """The body as the toolkits hand it to `input_fn`: text for JSON and CSV, a byte array for everything else.

    Raises:
        BadRequest: where text is not UTF-8.
    """
    if content_type not in _TEXT_TYPES:
        return bytearray(body)
    try:
        return bytes(body).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"a body of type {content_type} must be UTF-8") from None


def as_serving_error(error: BaseException, function: str) -> ServingError:
    """What a function raised, as an answer: its own status where it chose one, else 500 with a fixed text."""
    if isinstance(error, ServingError):
        answer = error
    elif isinstance(status := getattr(error, "status_code", None), int) and 400 <= status < 600:
        # sagemaker_inference.errors.BaseInferenceToolkitError, or a script's own like it
        answer = from_status(int(status), str(getattr(error, "message", error)))  # an enumeration of the script's, for one
    elif type(error).__name__ == "UnsupportedFormatError":
        answer = UnsupportedMediaType()
    else:
        answer = FunctionFailed(f"{function} failed; the log has the reason under this request id")
    answer.detail = f"{function}: {one_line(error)}"
    if error.__cause__ is not None:  # what a script says to its client leaves out what its operator needs to know
        answer.detail += f" ({one_line(error.__cause__)})"
    return answer


def as_body(answer: Any, accept: str) -> tuple[bytes, str]:
    """A response from what `output_fn` or `transform_fn` returned.

    Bytes or text are the body as they are. Anything else but None is encoded as the first type that the client accepts and that
    it can be, else as JSON. In a tuple of either and a content type, that is the type.

    Raises:
        FunctionFailed: where it cannot be encoded.
    """
    own_type: str | None = None
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], str):
        answer, own_type = answer
    if isinstance(answer, str):
        answer = answer.encode()
    if isinstance(answer, bytes | bytearray | memoryview):
        return bytes(answer), own_type or types.answered(accept, STOCK_ACCEPT)
    if answer is None:
        raise _cannot_be_made(answer, TypeError("a function that answers must return something"))
    wanted = [own_type] if own_type else [*types.all_accepted(accept, ENCODED), types.JSON]
    for content_type in wanted:
        try:
            return encode(answer, types.media_type(content_type), indent=2), content_type
        except (TypeError, ValueError, RecursionError) as error:  # such as a dict as CSV: the model servers make it JSON
            failed = _cannot_be_made(answer, error)
    raise failed


def _cannot_be_made(answer: Any, error: Exception) -> FunctionFailed:
    failed = FunctionFailed()
    failed.detail = f"an answer of type {type(answer).__name__} cannot be made: {one_line(error)}"
    failed.__cause__ = error
    return failed
