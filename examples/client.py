"""An application that asks a SageMaker endpoint for a matte, with a client made for requests that take GPU time.

    python examples/client.py --endpoint NAME photo.jpg matte.png

Needs boto3. Unchanged against SageMaker and against `python deploy/create_endpoint.py --local`, which prints the variables to
set.

What boto3 does by itself is made for requests that cost nothing: it waits for 60 s, as long as SageMaker does, then sends the
same request again, up to twice, while the GPU still works on the first. So here it waits for longer than SageMaker, and sends
nothing again by itself. What is sent again is what nobody has worked on: a refusal because all are busy.
"""

from __future__ import annotations

import argparse
import json
import logging
import mimetypes
import random
import sys
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# SageMaker gives up after 60 s and says so: ModelError with OriginalStatusCode 0.
READ_TIMEOUT_S = 75
BUSY = 503
# How often a request that was refused as busy is sent in all, and how long the whole may take.
ATTEMPTS = 6
LIMIT_S = 120.0
_LONGEST_WAIT_S = 20.0
# SageMaker's own words for "later": of its throttling, and of its busy fleet.
_LATER = ("ThrottlingException", "ServiceUnavailable", "ModelNotReadyException")

log = logging.getLogger("client")
mimetypes.add_type("image/webp", ".webp")


class InvocationError(Exception):
    """The endpoint gave no answer; the text says why, in one line."""


def make_client(connections: int = 32) -> Any:
    """boto3's client of the runtime; one serves all threads of an application.

    Args:
        connections: At most so many requests in flight; boto3's own 10 would let the others wait unseen.
    """
    config = Config(
        connect_timeout=5,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 1},
        max_pool_connections=connections,
        tcp_keepalive=True,
    )
    return boto3.client("sagemaker-runtime", config=config)


def invoke(client: Any, endpoint: str, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
    """Send one request; where the endpoint is busy, come again when it says, with some chance in it.

    Args:
        client: Of `make_client`.
        endpoint: Its name.
        body: The request.
        content_type: Of the request.
        accept: What is asked for.

    Returns:
        The answer and its custom attributes: the request's id, the replica, milliseconds per hop.

    Raises:
        InvocationError: where there is no answer.
    """
    give_up = time.monotonic() + LIMIT_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = client.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType=content_type, Accept=accept)
            return answer["Body"].read(), answer.get("CustomAttributes", "").strip()
        except ClientError as error:
            wait_s = wait_before_retry(error.response, attempt)
            if wait_s is None or attempt == ATTEMPTS or time.monotonic() + wait_s > give_up:
                raise InvocationError(explain(error.response)) from error
            log.info("busy, again in %.1f s", wait_s)
            time.sleep(wait_s)
        except BotoCoreError as error:
            # Nobody knows how far it got: a time-out says nothing about whether the endpoint still works on it.
            raise InvocationError(f"no answer: {error}") from error
    raise AssertionError("the last attempt returns or raises")


def wait_before_retry(response: dict[str, Any], attempt: int) -> float | None:
    """How long to wait before the same request is sent again; None: it is not.

    Args:
        response: Of boto3's ClientError.
        attempt: How often it has been sent, from 1.
    """
    code, said = response.get("Error", {}).get("Code", ""), _said(response)
    # SageMaker drops the container's Retry-After header; its JSON says the same and comes through. A 503 without it is of a
    # request that ended the process which worked on it; one that is no such JSON at all is of a front end that was full.
    refused = "retry_after_s" in said or "error" not in said
    busy = code == "ModelError" and response.get("OriginalStatusCode") == BUSY and refused
    if not busy and code not in _LATER:
        return None
    told_s = said.get("retry_after_s", 0)
    doubled_s: float = min(0.5 * 2 ** (attempt - 1), _LONGEST_WAIT_S)
    wait_s = max(float(told_s) if isinstance(told_s, int | float) else 0.0, doubled_s)
    # Not all who were refused at once come back at once.
    return wait_s * random.uniform(1.0, 1.5)


def explain(response: dict[str, Any]) -> str:
    """One line that says what went wrong, and whose fault it is."""
    error = response.get("Error", {})
    if error.get("Code") != "ModelError":
        return f"{error.get('Code')}: {error.get('Message', '')}"
    status = response.get("OriginalStatusCode")
    said = _said(response).get("message") or " ".join(str(response.get("OriginalMessage", "")).split())
    if not status:
        return f"the container gave no answer in time: {said}"
    whose = "the request is not one it takes" if 400 <= status < 500 else "the container failed"
    return f"{whose} ({status}): {said}"


def _said(response: dict[str, Any]) -> dict[str, Any]:
    """The container's own words, where they are the JSON that it answers errors with."""
    try:
        said = json.loads(response.get("OriginalMessage", ""))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def main() -> int:
    """A photo to a matte; the exit code."""
    parser = argparse.ArgumentParser(description="Ask a SageMaker endpoint for a photo's matte.")
    parser.add_argument("photo", type=Path, help="a JPEG, PNG or WebP")
    parser.add_argument("matte", type=Path, help="where the answer goes")
    parser.add_argument("--endpoint", required=True, help="its name")
    parser.add_argument("--accept", default="image/png", help="image/png (default), image/png;cutout, image/webp, …")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s")
    log.setLevel(logging.INFO)
    try:
        body = arguments.photo.read_bytes()
        content_type = mimetypes.guess_type(arguments.photo.name)[0] or "application/octet-stream"
        began = time.monotonic()
        answer, attributes = invoke(make_client(), arguments.endpoint, body, content_type, arguments.accept)
        log.info("%d bytes in %.0f ms; %s", len(answer), (time.monotonic() - began) * 1000, attributes)
        arguments.matte.write_bytes(answer)
    except (InvocationError, BotoCoreError, OSError) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
