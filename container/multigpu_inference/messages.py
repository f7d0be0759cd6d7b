"""What crosses a process boundary: plain dataclasses of standard types, and nothing else.

    front-end worker ──Invocation, body──► engine ──Task, blobs──► pool worker, replica worker
                     ◄─Answer, body────────        ◄─Result, blobs─ (or Failure)
                     ──ArenaOpened────────►        ──ArenaOpened, ArenaClosed──►
    HTTP front end ──Watch, Cancellation, Refusal, Scrape──► engine ──Health …, Exposition──► HTTP front end
    worker ──WorkerReady | StartFailed──► engine ──EngineReady, Heartbeat … | StartFailed──► supervisor
    HTTP front end ──Listening, EngineReached, Heartbeat … | StartFailed──► supervisor

Bytes (bodies, pickled objects, their tensors) travel beside a message as blobs, in its packet or in the request's arena
(`arena`); the engine passes them on unopened.
Times are seconds of the monotonic clock, which on Linux is one clock for all processes of a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from multigpu_inference import errors
from multigpu_inference.content_type import media_type

INPUT_FN, PREDICT_FN, OUTPUT_FN, TRANSFORM_FN = "input_fn", "predict_fn", "output_fn", "transform_fn"
FETCH_FN, STORE_FN = "fetch_fn", "store_fn"
STOCK_ORDER = (INPUT_FN, PREDICT_FN, OUTPUT_FN)
STOCK_ACCEPT = "application/json"  # what the stock toolkit makes for a client that accepts anything
HEARTBEAT_S = 1.0
# The engine's exit codes where it cannot go on: all pool workers, or the fetch worker, have been given up or have been away for
# too long; or there are too few replicas.
NO_WORKER_LEFT, TOO_FEW_REPLICAS = 6, 7


class Sent:
    """What may be sent: `ipc` makes objects of classes derived from this one out of what it receives, and no others.

    Pickles by position: a third of what a frozen dataclass with slots takes by itself, on both sides.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Let the class be received."""
        makers[cls.__module__, cls.__name__] = maker(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        """The class and its fields."""
        return type(self), (_readers.get(type(self)) or _reader(type(self)))(self)


def maker(cls: type) -> Callable[..., Any]:
    """What makes objects of a class, and is not the class: a pickle can change the attributes of a class that it is given."""
    make: Callable[..., Any] = type.__call__.__get__(cls)
    return make


makers: dict[tuple[str, str], Callable[..., Any]] = {}  # by module and name


def _reader(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What reads all fields of a class of message at once, in their order; made once for each."""
    names = tuple(kind.__dataclass_fields__)
    several = attrgetter(*names) if len(names) > 1 else None
    _readers[kind] = several or (lambda message: tuple(getattr(message, name) for name in names))
    return _readers[kind]


_readers: dict[Any, Callable[[Any], tuple[Any, ...]]] = {}


@dataclass(slots=True)
class Invocation(Sent):
    """One request, as a front end hands it to the engine; its body is the frame's only blob.

    What is known only on its way (`accept` where the client leaves it open, `arena`) is filled in there.

    Attributes:
        request_id: Made by the front end; in the log and in the answer.
        content_type: As the client sent it, "" where it sent none.
        accept: As the client sent it, "" where it sent none.
        headers: The request's headers, names in lower case.
        arrived: When the front end took it.
        deadline: When its time is over, absolute.
        form: Where it came as a form: the text fields beside its body.
        arena: The connection's arena that is this request's until its answer.
    """

    request_id: str
    content_type: str
    accept: str
    headers: Mapping[str, str]
    arrived: float
    deadline: float
    form: Mapping[str, str] = field(default_factory=dict)
    arena: int = 0


@dataclass(frozen=True, slots=True)
class Answer(Sent):
    """What the client gets; the body is the frame's only blob.

    Attributes:
        request_id: The invocation's.
        status: HTTP status.
        content_type: Of the body.
        attributes: Replica and milliseconds per hop, in the order of the hops.
        retry_after_s: Of a refusal: when to come again.
        arena_is_free: Whether the request's arena may be used for the next; else something may still write or read there.
        arena_used: How much of it the request used, in bytes.
    """

    request_id: str
    status: int
    content_type: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: int | None = None
    arena_is_free: bool = True
    arena_used: int = 0


@dataclass(frozen=True, slots=True)
class ArenaOpened(Sent):
    """An arena, by the number that messages on this connection will name it; its descriptor comes with this one."""

    number: int


@dataclass(frozen=True, slots=True)
class ArenaClosed(Sent):
    """No message on this connection will name this arena again."""

    number: int


@dataclass(frozen=True, slots=True)
class Cancellation(Sent):
    """The client of a request has gone: it is to cost nothing more. Its answer is still sent, so that its arena is known."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Refusal(Sent):
    """Requests that the front end has refused by itself, to be counted with the others.

    Attributes:
        status: HTTP status.
        code: The error's.
        count: How many.
    """

    status: int
    code: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class WithdrawalsOpened(Sent):
    """The page in which the engine marks a worker's tasks that nobody waits for any more; its descriptor comes with this."""


@dataclass(frozen=True, slots=True)
class Watch(Sent):
    """Whoever sends this is told the engine's `Health` at once, at every change, and every `HEARTBEAT_S`."""


@dataclass(frozen=True, slots=True)
class Health(Sent):
    """How the engine is.

    Attributes:
        state: `healthy`, `below_minimum` or `draining`.
        healthy_replicas: Replicas that can take requests.
        num_replicas: How many there are to be.
        max_in_flight: Requests that the engine holds at most, those included that wait to be admitted.
        retry_after_s: When who is refused because it holds so many should come again.
    """

    state: str
    healthy_replicas: int
    num_replicas: int
    max_in_flight: int
    retry_after_s: int = 1


@dataclass(frozen=True, slots=True)
class Scrape(Sent):
    """The metrics are wanted, in an `Exposition` of this number.

    Attributes:
        number: The scrape's.
        for_people: Whether as the few figures that people look at, with advice, in JSON; else all, in Prometheus' text format.
    """

    number: int
    for_people: bool = False


@dataclass(frozen=True, slots=True)
class Exposition(Sent):
    """The metrics, asked for by the scrape of this number; their text is the only blob, of this content type."""

    number: int
    content_type: str


@dataclass(slots=True)
class Task(Sent):
    """What a worker is to run: consecutive functions of the user's script.

    Whoever hands it on fills in what only it knows: `arena_used`, then `task_id`, `arena` and `slot`.

    Attributes:
        task_id: Unique within the engine; a worker's answer repeats it.
        steps: Function names, in order. Where the first takes the body (`fetch_fn`, `input_fn`, `transform_fn`) that is the
            only blob; for `store_fn` the blobs are the answer and an encoded object (`codec`); otherwise they are one.
        invocation: The request this is for.
        device_paths: Where in the decoded object the tensors stand that belong on the replica's device.
        tensor_paths: Where a trial has seen tensors at all; None where nobody has looked, and all stay on the CPU.
        fetched: How many blobs stand in the body's place for `input_fn`: what `fetch_fn` gave, encoded; 0: the body itself.
        content_type: For `store_fn`: of the answer.
        trial: Whether this is the run that finds out where `input_fn` and `output_fn` can run (`trial`).
        arena: The request's arena, by the engine's number.
        arena_used: Where free bytes begin in it: the worker's own stand behind.
        slot: Of the worker's page of withdrawals (`engine.interest`); -1 as long as no worker has it.
    """

    task_id: int
    steps: tuple[str, ...]
    invocation: Invocation
    device_paths: frozenset[str] = frozenset()
    tensor_paths: frozenset[str] | None = None
    fetched: int = 0
    content_type: str = ""
    trial: bool = False
    arena: int = 0
    arena_used: int = 0
    slot: int = -1


@dataclass(frozen=True, slots=True)
class Result(Sent):
    """A task's answer. Blobs as for a task: a body where the last step makes one, else an encoded object.

    Attributes:
        task_id: The task's.
        spans: Per hop its name (`preprocess_ms`, `stage_1_ms` … or `predict_ms`, `postprocess_ms`), when it began and
            ended, and how many items shared it.
        content_type: Of the body, where the last step makes one.
        findings: What a trial found; None for every other task.
        fetched: What `fetch_fn` gave; None for every other task.
        keeps_arena: Whether the worker still refers to bytes of the arena: user code has kept some.
    """

    task_id: int
    spans: tuple[tuple[str, float, float, int], ...] = ()
    content_type: str | None = None
    findings: Findings | None = None
    fetched: FetchResult | None = None
    keeps_arena: bool = False


@dataclass(frozen=True, slots=True)
class FetchedItem(Sent):
    """One input that `fetch_fn` gave: where its blobs are among the result's, in order, or why there are none.

    Attributes:
        data: How many blobs `input_fn` is given in the body's place.
        store: How many blobs behind those `store_fn` is given; 0: the answer is not stored.
        failure: Why this item of several cannot be read.
    """

    data: int = 0
    store: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class FetchResult(Sent):
    """What `fetch_fn` gave.

    Attributes:
        items: One, or those of a bulk request in order.
        bulk: Whether they are answered together, as a list.
    """

    items: tuple[FetchedItem, ...]
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Findings(Sent):
    """What a replica worker found in a trial (`trial`): whether the functions may leave it.

    The trial's blobs are the answer's body, then the encoded prediction.

    Attributes:
        keep_input: Why `input_fn` must stay in the replica worker; None where it may move.
        device_paths: The tensors of its result that the script itself had put on its device.
        tensor_paths: All tensors of its result.
        keep_output: Why `output_fn` must stay; None where the pool's answer is to be compared with this one.
    """

    keep_input: str | None
    device_paths: frozenset[str]
    tensor_paths: frozenset[str]
    keep_output: str | None


@dataclass(frozen=True, slots=True)
class Failure(Sent):
    """A task that raised: the class of the error by name, its text for the client, a line for the log, its status.

    Attributes:
        spared: Where nobody waited for it any more: the function or stage that was not begun because of it.
    """

    task_id: int
    kind: str
    message: str
    detail: str = ""
    status: int = 500
    keeps_arena: bool = False
    spared: str = ""

    def error(self) -> errors.ServingError:
        """The error itself."""
        error = errors.from_name(self.kind, self.message, self.status)
        error.detail = self.detail
        return error


@dataclass(frozen=True, slots=True)
class WorkerReady(Sent):
    """A worker has loaded everything and waits for tasks.

    Attributes:
        pid: Its process.
        load_ms: How long that took.
        concurrency: How many tasks it works on at a time.
    """

    pid: int
    load_ms: float
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class BranchFailure(Sent):
    """A branch's model could not turn a batch into results, in a process of its own.

    Attributes:
        kind: The error's class in `errors`, where it has an HTTP status; else nothing.
        message: One line.
        status: Its HTTP status.
        trace: For the log.
        out_of_memory: Whether fewer items might have fitted.
    """

    kind: str
    message: str
    status: int = 500
    trace: str = ""
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class StartFailed(Sent):
    """A process cannot start; `message` is the one line that says why."""

    message: str
    exit_code: int = errors.StartupError.exit_code


@dataclass(frozen=True, slots=True)
class EngineReady(Sent):
    """Every replica has loaded and been warmed: multi-model-server may start.

    Attributes:
        num_replicas: Healthy replicas.
        num_devices: Different devices that they use.
        front_end_workers: How many requests the engine can hold, so how many front-end workers are of use.
    """

    num_replicas: int
    num_devices: int
    front_end_workers: int


@dataclass(frozen=True, slots=True)
class Heartbeat(Sent):
    """The sender's event loop is alive. Sent every `HEARTBEAT_S`, because a process can be there and do nothing."""


@dataclass(frozen=True, slots=True)
class Listening(Sent):
    """The HTTP front end answers on its port; until the engine is ready, with 503."""


@dataclass(frozen=True, slots=True)
class EngineReached(Sent):
    """The HTTP front end knows from the engine how it is: requests can be answered."""


@dataclass(frozen=True, slots=True)
class ScriptInfo(Sent):
    """What the probe read from the user's script where no GPU is visible.

    Attributes:
        stages: `STAGES`, or 1.
        functions: Names of the functions that it has.
        defaults: Those of them that are the toolkit's, because it does not define them.
        fetch_types: `FETCH_TYPES`: the media types that go through `fetch_fn`; None: all.
        default_accept: `DEFAULT_ACCEPT`: the type to make when a client accepts anything; None where it says nothing.
        sample: What `sample_input()` returned: a body and its content type.
        import_error: Why the script cannot be imported without a GPU; the rest is then unknown.
    """

    stages: int = 1
    functions: frozenset[str] = frozenset()
    defaults: frozenset[str] = frozenset()
    fetch_types: frozenset[str] | None = None
    default_accept: str | None = None
    sample: tuple[bytes, str] | None = None
    import_error: str | None = None

    def fetches(self, content_type: str, form: Mapping[str, str]) -> bool:
        """Whether a request goes through `fetch_fn`: by its content type, or because it is a form with more than a body."""
        if FETCH_FN not in self.functions:
            return False
        return self.fetch_types is None or media_type(content_type) in self.fetch_types or bool(form)


@dataclass(frozen=True, slots=True)
class CudaReport(Sent):
    """What torch and the driver say of CUDA.

    Attributes:
        count: GPUs that torch can use.
        torch_version: Of the installed torch.
        torch_cuda: The CUDA version that torch was built for; None for a CPU build.
        driver_cuda: The CUDA version that the driver is for; None where there is no driver.
        reason: Why torch can use none.
    """

    count: int
    torch_version: str
    torch_cuda: str | None
    driver_cuda: str | None
    reason: str


Message = Any  # one of the classes above; `ipc` carries any of them
