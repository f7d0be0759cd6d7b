"""Settings, read once from the environment into frozen dataclasses.

SageMaker's variables keep their names; ours begin with `MULTIGPU_`. A value that is not allowed stops the start with
the variable's name, its value and what is allowed; so does a name that is nearly one of ours. Every process of the
container reads the same environment, so nothing here needs to be sent to it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multigpu_inference.errors import SettingsError
from multigpu_inference.url_fetch.policy import UrlPolicy

# More front-end workers than this never connect: multi-model-server's listen backlog is 128.
MAX_FRONT_END_WORKERS = 120
# Multi-model-server takes no port from 32767 on.
MAX_PORT = 32_766

MMS, HTTP = "mms", "http"
DEFAULT_PROGRAM = "inference.py"
# Set where the platform gives a container credentials of its own.
_AWS_CREDENTIALS = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"

_OWN_NAMES = (
    "MULTIGPU_AWS_CREDENTIALS",
    "MULTIGPU_CHANNELS_LAST",
    "MULTIGPU_CLOUDWATCH",
    "MULTIGPU_COMPILE",
    "MULTIGPU_CUDA_GRAPHS",
    "MULTIGPU_DEVICES",
    "MULTIGPU_DTYPE",
    "MULTIGPU_ENDPOINT_NAME",
    "MULTIGPU_FRONT_END",
    "MULTIGPU_MAX_BATCH_DELAY_MS",
    "MULTIGPU_MAX_BATCH_SIZE",
    "MULTIGPU_MAX_QUEUE_SIZE",
    "MULTIGPU_MIN_REPLICAS",
    "MULTIGPU_MPS",
    "MULTIGPU_NUM_REPLICAS",
    "MULTIGPU_PLACEMENT",
    "MULTIGPU_PREPROCESS",
    "MULTIGPU_PREPROCESS_MEMORY_MB",
    "MULTIGPU_PREPROCESS_TIMEOUT_S",
    "MULTIGPU_PREPROCESS_WORKERS",
    "MULTIGPU_REQUEST_TIMEOUT_S",
    "MULTIGPU_STAGE_THREADS",
    "MULTIGPU_STARTUP_TIMEOUT_S",
    "MULTIGPU_STREAMS_PER_STAGE",
    "MULTIGPU_TENSORRT",
    "MULTIGPU_TRACE",
    "MULTIGPU_URLS",
    "MULTIGPU_URL_HOSTS",
    "MULTIGPU_URL_NETWORKS",
    "MULTIGPU_URL_PORTS",
    "MULTIGPU_USER",
)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Where the model is.

    Attributes:
        base_dir: `SAGEMAKER_BASE_DIR`, /opt/ml.
        program: `SAGEMAKER_PROGRAM`: the script's file name within the code folder, inference.py.
        default_accept: `SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT`: the type to make when a client accepts anything.
    """

    base_dir: Path
    program: str
    default_accept: str | None

    @property
    def model_dir(self) -> Path:
        """What model.tar.gz was unpacked into."""
        return self.base_dir / "model"

    @property
    def code_dir(self) -> Path:
        """The archive's `code/` folder."""
        return self.model_dir / "code"

    @property
    def script(self) -> Path:
        """The user's script."""
        return self.code_dir / self.program


@dataclass(frozen=True, slots=True)
class FrontEndSettings:
    """The HTTP side.

    Attributes:
        kind: `MULTIGPU_FRONT_END`: mms (multi-model-server), http.
        port: `SAGEMAKER_BIND_TO_PORT`, 8080.
        workers: `SAGEMAKER_MODEL_SERVER_WORKERS`: here the number of requests in flight; None: as many as are of use. The HTTP
            front end has none.
        max_payload_bytes: `SAGEMAKER_MAX_PAYLOAD_IN_MB`, 25: limit of a request's body and of an answer's.
        vmargs: `SAGEMAKER_MODEL_SERVER_VMARGS`: the JVM's flags, where there is one.
    """

    kind: str
    port: int
    workers: int | None
    max_payload_bytes: int
    vmargs: str


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Replicas, pool and limits; None stands for a default that depends on the machine (`engine.capacity`).

    Attributes:
        devices: `MULTIGPU_DEVICES`: auto, cuda (stop where no GPU can be used), cpu (on purpose).
        num_replicas: `MULTIGPU_NUM_REPLICAS`: default one per visible GPU, on the CPU one.
        min_replicas: `MULTIGPU_MIN_REPLICAS`: 1: with fewer healthy ones /ping says 503 (http); in the end it leaves.
        placement: `MULTIGPU_PLACEMENT`: ring, same, or a list such as `cuda:0,cuda:2;cuda:1,cuda:3`.
        mps: `MULTIGPU_MPS`: whether processes that share a GPU compute at the same time, by NVIDIA's Multi-Process Service.
        preprocess: `MULTIGPU_PREPROCESS`: where input_fn and output_fn run: auto (find out), pool, replica.
        preprocess_workers: `MULTIGPU_PREPROCESS_WORKERS`: processes of the pool.
        preprocess_timeout_s: `MULTIGPU_PREPROCESS_TIMEOUT_S`: 20: how long a pool worker may take for one task before it is
            killed. Two tries fit into a request's time, so that what hangs is known for it; longer than a request it never is.
        preprocess_memory_bytes: `MULTIGPU_PREPROCESS_MEMORY_MB`: 4096: what a pool worker may have beside what the loaded
            script takes; 0: as much as there is.
        max_queue_size: `MULTIGPU_MAX_QUEUE_SIZE`: requests that may wait to be admitted.
        request_timeout_s: `MULTIGPU_REQUEST_TIMEOUT_S`: 55, from arrival; SageMaker gives up at 60.
        startup_timeout_s: `MULTIGPU_STARTUP_TIMEOUT_S`: 600, for all models to load.
        stage_threads: `MULTIGPU_STAGE_THREADS`: CPU threads that a stage of a replica computes one batch with.
        streams_per_stage: `MULTIGPU_STREAMS_PER_STAGE`: 1: batches that a stage works on at a time, on one copy of its weights.
        max_batch_size: `MULTIGPU_MAX_BATCH_SIZE`: items that a stage takes at a time, at most: default 8 on GPUs, 1 on the CPU.
        max_batch_delay_ms: `MULTIGPU_MAX_BATCH_DELAY_MS`: 0: how long a stage that has room may wait for its batch to grow.
        trace: `MULTIGPU_TRACE`: whether a request's log line has the beginning and the end of each hop.
    """

    devices: str
    num_replicas: int | None
    min_replicas: int
    placement: str
    mps: bool
    preprocess: str
    preprocess_workers: int | None
    preprocess_timeout_s: float
    preprocess_memory_bytes: int
    max_queue_size: int | None
    request_timeout_s: float
    startup_timeout_s: float
    stage_threads: int | None
    streams_per_stage: int
    max_batch_size: int | None
    max_batch_delay_ms: float
    trace: bool


@dataclass(frozen=True, slots=True)
class AccelerationSettings:
    """How networks are run that a script hands to `accelerate`. What changes numbers is off by default.

    Attributes:
        dtype: `MULTIGPU_DTYPE`: float32, float16, bfloat16.
        channels_last: `MULTIGPU_CHANNELS_LAST`: 1, 0; None: on the CPU, and on a GPU in half precision, where it is faster.
        cuda_graphs: `MULTIGPU_CUDA_GRAPHS`: whether stages of a fixed shape replay captured graphs.
        compile: `MULTIGPU_COMPILE`: whether stages of a fixed shape go through `torch.compile`, which needs a C compiler.
        tensorrt: `MULTIGPU_TENSORRT`: whether ONNX Runtime gives a GPU's work to TensorRT.
    """

    dtype: str
    channels_last: bool | None
    cuda_graphs: bool
    compile: bool
    tensorrt: bool = False


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is told of the work, beside the log and `/metrics`.

    Attributes:
        cloudwatch: `MULTIGPU_CLOUDWATCH`: whether metrics in CloudWatch's embedded format are logged, once a minute; auto:
            where the platform hands out AWS credentials to a container, as SageMaker does.
        endpoint_name: `MULTIGPU_ENDPOINT_NAME`: a dimension of those metrics; SageMaker does not tell it to the container.
        otlp_endpoint: `OTEL_EXPORTER_OTLP_ENDPOINT` (or its form for traces alone): where spans go; None: nowhere.
    """

    cloudwatch: bool
    endpoint_name: str
    otlp_endpoint: str | None


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """What processes may do.

    Attributes:
        user: `MULTIGPU_USER`: whom all but the supervisor run as where the container is started as root; root: stay root; None:
            the image's own user, where there is one (`unprivileged`).
        aws_credentials: `MULTIGPU_AWS_CREDENTIALS`: whether all of the script's functions find AWS credentials, or only
            `fetch_fn` and `store_fn` (`credentials`).
    """

    user: str | None
    aws_credentials: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the container can be told."""

    model: ModelSettings
    front_end: FrontEndSettings
    engine: EngineSettings
    acceleration: AccelerationSettings
    telemetry: TelemetrySettings
    security: SecuritySettings
    urls: UrlPolicy

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read all settings; `SettingsError` at the first value or name that is not allowed."""
        _refuse_misspelt(environ)
        if environ.get("SAGEMAKER_MULTI_MODEL", "false").lower() == "true":
            raise SettingsError("SAGEMAKER_MULTI_MODEL='true': this container serves one model, on all GPUs")
        read = _Reader(environ)
        return cls(
            model=ModelSettings(
                base_dir=Path(read.text("SAGEMAKER_BASE_DIR", "/opt/ml")),
                program=_program(read),
                default_accept=read.text("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "") or None,
            ),
            front_end=FrontEndSettings(
                kind=read.choice("MULTIGPU_FRONT_END", MMS, (MMS, HTTP)),
                port=read.integer("SAGEMAKER_BIND_TO_PORT", 8080, 1, MAX_PORT),
                workers=read.optional_integer("SAGEMAKER_MODEL_SERVER_WORKERS", 1, MAX_FRONT_END_WORKERS),
                max_payload_bytes=read.integer("SAGEMAKER_MAX_PAYLOAD_IN_MB", 25, 1, 1000) << 20,
                # The parallel collector with 2 GB held 128 bodies of 5 MB in flight; the first compiler tier alone
                # costs a request 1 ms instead of 3 to 9.
                vmargs=read.text("SAGEMAKER_MODEL_SERVER_VMARGS", "-Xmx2g -XX:+UseParallelGC -XX:TieredStopAtLevel=1"),
            ),
            engine=EngineSettings(
                devices=read.choice("MULTIGPU_DEVICES", "auto", ("auto", "cuda", "cpu")),
                num_replicas=read.optional_integer("MULTIGPU_NUM_REPLICAS", 1, 256),
                min_replicas=read.integer("MULTIGPU_MIN_REPLICAS", 1, 1, 256),
                placement=read.text("MULTIGPU_PLACEMENT", "ring"),
                mps=bool(read.switch("MULTIGPU_MPS", False)),
                preprocess=read.choice("MULTIGPU_PREPROCESS", "auto", ("auto", "pool", "replica")),
                preprocess_workers=read.optional_integer("MULTIGPU_PREPROCESS_WORKERS", 1, 1024),
                preprocess_timeout_s=read.number("MULTIGPU_PREPROCESS_TIMEOUT_S", 20.0, 0.1, 3600.0),
                preprocess_memory_bytes=read.integer("MULTIGPU_PREPROCESS_MEMORY_MB", 4096, 0, 1 << 20) << 20,
                max_queue_size=read.optional_integer("MULTIGPU_MAX_QUEUE_SIZE", 0, 100_000),
                request_timeout_s=read.number("MULTIGPU_REQUEST_TIMEOUT_S", 55.0, 0.1, 3600.0),
                startup_timeout_s=read.number("MULTIGPU_STARTUP_TIMEOUT_S", 600.0, 1.0, 3600.0),
                stage_threads=read.optional_integer("MULTIGPU_STAGE_THREADS", 1, 1024),
                streams_per_stage=_streams_per_stage(read),
                max_batch_size=read.optional_integer("MULTIGPU_MAX_BATCH_SIZE", 1, 1024),
                max_batch_delay_ms=read.number("MULTIGPU_MAX_BATCH_DELAY_MS", 0.0, 0.0, 10_000.0, "milliseconds"),
                trace=bool(read.switch("MULTIGPU_TRACE", False)),
            ),
            acceleration=AccelerationSettings(
                dtype=read.choice("MULTIGPU_DTYPE", "float32", ("float32", "float16", "bfloat16")),
                channels_last=read.switch("MULTIGPU_CHANNELS_LAST", None),
                cuda_graphs=bool(read.switch("MULTIGPU_CUDA_GRAPHS", False)),
                compile=bool(read.switch("MULTIGPU_COMPILE", False)),
                tensorrt=bool(read.switch("MULTIGPU_TENSORRT", False)),
            ),
            telemetry=TelemetrySettings(
                cloudwatch=_cloudwatch(read, environ),
                endpoint_name=read.text("MULTIGPU_ENDPOINT_NAME", ""),
                otlp_endpoint=read.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", read.text("OTEL_EXPORTER_OTLP_ENDPOINT", ""))
                or None,
            ),
            security=SecuritySettings(
                user=_user(read),
                aws_credentials=bool(read.switch("MULTIGPU_AWS_CREDENTIALS", False)),
            ),
            urls=UrlPolicy.from_env(environ),
        )


class _Reader:
    """Reads one variable at a time and says what is allowed where it is not."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str) -> str:
        return self._environ.get(name, "").strip() or default

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.text(name, default).lower()
        if value not in allowed:
            raise SettingsError(f"{name}={value!r}: allowed are {', '.join(allowed)}")
        return value

    def switch(self, name: str, default: bool | None) -> bool | None:
        text = self.text(name, "").lower()
        if text not in ("", "0", "1"):
            raise SettingsError(f"{name}={text!r}: allowed are 0 and 1")
        return text == "1" if text else default

    def number(self, name: str, default: float, low: float, high: float, unit: str = "seconds") -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise SettingsError(f"{name}={text!r}: allowed is a number of {unit} from {low:g} to {high:g}")
        return value

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        text = self.text(name, "")
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 20 or not low <= int(text) <= high:
            raise SettingsError(f"{name}={text!r}: allowed is a whole number from {low} to {high}")
        return int(text)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.optional_integer(name, low, high)
        return default if value is None else value


def _streams_per_stage(read: _Reader) -> int:
    streams = read.integer("MULTIGPU_STREAMS_PER_STAGE", 1, 1, 1024)
    if streams > 1 and read.switch("MULTIGPU_CUDA_GRAPHS", False):
        raise SettingsError(
            f"MULTIGPU_STREAMS_PER_STAGE={streams} with MULTIGPU_CUDA_GRAPHS=1: a captured graph has one set of buffers, so "
            "its batches would take turns; allowed is one of the two"
        )
    return streams


def _cloudwatch(read: _Reader, environ: Mapping[str, str]) -> bool:
    chosen = read.choice("MULTIGPU_CLOUDWATCH", "auto", ("auto", "0", "1"))
    return chosen == "1" or (chosen == "auto" and _AWS_CREDENTIALS in environ)


def _user(read: _Reader) -> str | None:
    user = read.text("MULTIGPU_USER", "")
    if not re.fullmatch(r"([a-z_][a-z0-9_-]{0,31})?", user):
        raise SettingsError(f"MULTIGPU_USER={user!r}: allowed are names of users, and root")
    return user or None


def _program(read: _Reader) -> str:
    program = read.text("SAGEMAKER_PROGRAM", DEFAULT_PROGRAM)
    if "/" in program or program.startswith("."):
        raise SettingsError(f"SAGEMAKER_PROGRAM={program!r}: allowed is a file name within the code folder")
    return program if program.endswith(".py") else f"{program}.py"


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """A misspelt setting would be ignored without a word. Scripts may have `MULTIGPU_` names of their own."""
    for name in environ:
        if name.startswith("MULTIGPU_") and name not in _OWN_NAMES:
            near = difflib.get_close_matches(name, _OWN_NAMES, n=1, cutoff=0.87)
            if near:
                raise SettingsError(f"{name} is not a setting; did you mean {near[0]}?")
