"""Real requests through `invoke_endpoint`, until every replica has answered one.

"In service" says that the container answers /ping. Whether the models do, on each GPU, only a request can tell.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from account import Account, error_code, translate
from deploy_error import Denied, SmokeFailed
from deploy_progress import DeployProgress
from deploy_settings import SmokeSettings
from endpoint_log import EndpointLog, cause

# SageMaker answers after 60 s at the latest. boto3 would send a request again that took longer than it waits, and the GPU
# would work for nobody: it waits longer than SageMaker does, and sends nothing twice.
CLIENT_CONFIG = Config(read_timeout=75, connect_timeout=10, retries={"total_max_attempts": 1})
_REPLICA = re.compile(r"\breplica=(\d+)")
_PNG = b"\x89PNG\r\n\x1a\n"
_BUSY = 503
_BUSY_WAIT_S = 1.0
_ASYNC_POLL_S = 2.0
_ASYNC_LIMIT_S = 900.0
mimetypes.add_type("image/webp", ".webp")


@dataclass(frozen=True, slots=True)
class SmokeAnswer:
    """An answer of the endpoint.

    Attributes:
        body: What it is.
        content_type: Its type.
        replica: Which replica gave it; None: the answer does not say.
        attributes: The custom attributes as they came.
    """

    body: bytes
    content_type: str
    replica: int | None
    attributes: str


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """How it went: requests that were answered, and by which replicas."""

    requests: int
    replicas: frozenset[int]


def invoke(account: Account, endpoint: str, body: bytes, content_type: str, accept: str) -> SmokeAnswer:
    """Send one request.

    Raises:
        SmokeFailed: with what the container, or SageMaker, says.
        Denied: where the caller may not invoke.
    """
    client = account.client("sagemaker-runtime", config=CLIENT_CONFIG)
    request = {"EndpointName": endpoint, "Body": body, "ContentType": content_type}
    try:
        answer = client.invoke_endpoint(**request, **({"Accept": accept} if accept else {}))
        content = answer["Body"].read()
    except ClientError as error:
        raise _invocation_error(error) from error
    except BotoCoreError as error:
        raise SmokeFailed(f"no answer to an invocation: {error}") from error
    attributes = answer.get("CustomAttributes", "").strip()
    match = _REPLICA.search(attributes)
    return SmokeAnswer(content, answer.get("ContentType", ""), int(match[1]) if match else None, attributes)


def smoke(
    account: Account, progress: DeployProgress, endpoint: str, settings: SmokeSettings, replicas: int | None, instances: int
) -> SmokeResult:
    """Invoke until every replica has answered.

    Args:
        account: To invoke in.
        progress: Is told of each answer.
        endpoint: Its name.
        settings: What to send.
        replicas: How many an instance has; None: not known, and one answer is enough.
        instances: How many there are. Which one answered is not told: with several, more requests are sent.

    Raises:
        SmokeFailed: where an answer is none, or a replica never answers.
    """
    log = EndpointLog(account, endpoint)
    seen: set[int] = set()
    wanted = set(range(replicas)) if replicas is not None else None
    attempts = settings.attempts or 4 + 6 * (replicas or 1) * instances
    answered = 0
    for path in _files(settings, attempts):
        try:
            answer = invoke(account, endpoint, path.read_bytes(), content_type_of(path, settings.content_type), settings.accept)
            _check(answer, settings.accept)
        except SmokeFailed as error:
            status = getattr(error.__cause__, "response", {}).get("OriginalStatusCode")
            if status == _BUSY:
                account.sleep(_BUSY_WAIT_S)
                continue
            line = cause(log.new_lines())
            raise SmokeFailed(f"{path.name}: {error}" + (f"; log: {line}" if line else "")) from error
        answered += 1
        if answer.replica is not None:
            seen.add(answer.replica)
        progress.state(f"{answered} answered, by replicas {', '.join(map(str, sorted(seen))) or '(not told)'}")
        # Several instances number their replicas alike: each is given its share of the requests.
        if (wanted is None or seen >= wanted) and answered >= instances * (replicas or 1):
            return SmokeResult(answered, frozenset(seen))
    missing = sorted((wanted or set()) - seen)
    if not answered:
        raise SmokeFailed(f"{attempts} invocations were refused as overloaded: see `create_endpoint.py logs`")
    if not seen:
        raise SmokeFailed("no answer says which replica gave it (custom attributes): is the image one of this project's?")
    if missing:
        text = f"replicas {', '.join(map(str, missing))} of {replicas} never answered in {attempts} invocations"
        raise SmokeFailed(f"{text}: see `create_endpoint.py logs`, or raise smoke.attempts if there is other traffic")
    return SmokeResult(answered, frozenset(seen))


def smoke_async(account: Account, progress: DeployProgress, endpoint: str, settings: SmokeSettings, folder: str) -> SmokeResult:
    """Send one request by way of S3 and wait for the answer there.

    Args:
        account: To invoke in.
        progress: Is told what is waited for.
        endpoint: Its name.
        settings: What to send: the first file.
        folder: s3://bucket/prefix/ that requests are put in.

    Raises:
        SmokeFailed: where a failure comes in place of an answer, or nothing.
    """
    path = settings.files[0]
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    key = f"{prefix}smoke{path.suffix}"
    content_type = content_type_of(path, settings.content_type)
    account.call("s3", "put_object", Bucket=bucket, Key=key, Body=path.read_bytes(), ContentType=content_type)
    request = {"EndpointName": endpoint, "InputLocation": f"s3://{bucket}/{key}", "ContentType": content_type}
    answer = account.call(
        "sagemaker-runtime", "invoke_endpoint_async", **request, **({"Accept": settings.accept} if settings.accept else {})
    )
    try:
        return _await_async(account, progress, path.name, answer)
    finally:
        account.call("s3", "delete_object", Bucket=bucket, Key=key)


def _await_async(account: Account, progress: DeployProgress, name: str, answer: dict[str, Any]) -> SmokeResult:
    began = account.clock()
    while account.clock() - began < _ASYNC_LIMIT_S:
        if _is_there(account, answer["OutputLocation"]):
            return SmokeResult(1, frozenset())
        if answer.get("FailureLocation") and _is_there(account, answer["FailureLocation"]):
            raise SmokeFailed(f"{name}: the asynchronous invocation failed: see {answer['FailureLocation']}")
        progress.state(f"waiting for {answer['OutputLocation']}")
        account.sleep(_ASYNC_POLL_S)
    raise SmokeFailed(f"{name}: nothing at {answer['OutputLocation']} after {_ASYNC_LIMIT_S:.0f} s")


def content_type_of(path: Path, given: str = "") -> str:
    """What to call a file's content."""
    return given or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _files(settings: SmokeSettings, attempts: int) -> Iterator[Path]:
    for _, path in zip(range(attempts), cycle(settings.files), strict=False):
        yield path


def _check(answer: SmokeAnswer, accept: str) -> None:
    if not answer.body:
        raise SmokeFailed("the answer is empty")
    if accept.startswith("image/png") and not answer.body.startswith(_PNG):
        raise SmokeFailed(f"the answer is no PNG ({answer.content_type}, {len(answer.body)} bytes)")


def _invocation_error(error: ClientError) -> Exception:
    response: dict[str, Any] = error.response
    if error_code(error) == "ModelError":
        status, message = response.get("OriginalStatusCode"), " ".join(str(response.get("OriginalMessage", "")).split())
        if status in (0, None):
            return SmokeFailed("no answer within 60 s, after which SageMaker gives up")
        return SmokeFailed(f"the container answered {status}: {message}")
    translated = translate("sagemaker-runtime.invoke_endpoint", error)
    return translated if isinstance(translated, Denied) else SmokeFailed(str(translated))


def _is_there(account: Account, location: str) -> bool:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return account.find("s3", "head_object", Bucket=bucket, Key=key) is not None
