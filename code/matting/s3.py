"""Objects in S3: read within bounds, and written. Runs in the fetch process, on any of its threads.

The credentials are the endpoint's role, found as boto3 finds them; `AWS_ENDPOINT_URL_S3` points it elsewhere.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from matting.room import Reserve, unbounded
from matting.s3_location import S3Location
from multigpu_inference.errors import BadRequest, PayloadTooLarge, ServingError, Unavailable
from multigpu_inference.url_fetch.watch import SecondsLeft, forever, refuse_if_late

MAX_BYTES = 25_000_000
TIMEOUT_S = 10.0
# Together below 15 s, after which a client is told that S3 does not answer.
_CONNECT_TIMEOUT_S = 2.0
_READ_TIMEOUT_S = 4.5  # without a byte
_ATTEMPTS = 2
_CONNECTIONS = 64  # kept open between requests; where more are wanted at a time, those are opened and closed again
_CHUNK_BYTES = 1 << 18

_lock = threading.Lock()
_made: Any = None

# What the client can mend: it named the object.
_NOT_THERE = ("NoSuchKey", "NoSuchBucket", "404")
# What the operator can mend, whatever the object.
_NO_ENTRY = ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed")
# What passes by itself. Statuses from 500 on count as well.
_PASSING = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestTimeTooSkewed", "RequestLimitExceeded")


def get_object(
    location: S3Location,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
    seconds_left: SecondsLeft = forever,
    reserve: Reserve = unbounded,
) -> bytearray:
    """Read an object that a client named.

    Args:
        location: where it is.
        max_bytes: most bytes taken, whatever S3 announces.
        timeout_s: seconds for its bytes, once S3 has begun to answer.
        seconds_left: for how many seconds somebody still waits for it.
        reserve: takes room for bytes before they come.

    Raises:
        BadRequest: there is no such object, or this endpoint may not read it.
        PayloadTooLarge: it has more than `max_bytes`.
        Unavailable: S3 cannot be reached, is too slow, or asks to come back later.
        DeadlineExceeded: nobody waits for it any more.
        ServingError: this endpoint has no credentials; or what `reserve` raises.
    """
    too_large = PayloadTooLarge(f"the picture behind 'url' is larger than {max_bytes / 1e6:g} MB")
    from botocore.exceptions import EndpointProviderError, IncompleteReadError  # here: importing boto3's takes a while

    refuse_if_late(seconds_left)
    try:
        answer = _client().get_object(Bucket=location.bucket, Key=location.key)
        deadline = time.monotonic() + timeout_s
        with contextlib.closing(answer["Body"]) as stream:
            if answer["ContentLength"] > max_bytes:
                raise too_large
            reserve(answer["ContentLength"])
            body = bytearray()
            # What has come, from urllib3's stream below: botocore's own waits for all that it is asked for, however slowly
            # that comes. No more comes than is announced.
            while chunk := stream._raw_stream.read1(_CHUNK_BYTES):
                body += chunk
                refuse_if_late(seconds_left)
                if time.monotonic() > deadline:
                    slow = f"took longer than {timeout_s:g} s to download"
                    raise Unavailable(f"the object at the s3:// address in 'url' {slow}")
            if len(body) < answer["ContentLength"]:
                raise IncompleteReadError(actual_bytes=len(body), expected_bytes=answer["ContentLength"])
            return body
    except ServingError:
        raise
    except EndpointProviderError as error:  # such as for names that end in --x-s3
        raise BadRequest("'url' is no address in S3: its bucket's name is not one that S3 allows") from error
    except Exception as error:  # botocore's own classes, and those of what it is built on
        code, status = _code(error), _status(error)
        if code in _NOT_THERE:
            raise BadRequest("there is no object at the s3:// address in 'url'") from error
        if 400 <= status < 500 and code not in _NO_ENTRY and not _passes(error):
            raise BadRequest(f"the object at the s3:// address in 'url' cannot be read: {code}") from error
        raise _failure(error, "the object at the s3:// address in 'url' cannot be read") from error


def put_object(location: S3Location, body: bytes, content_type: str) -> None:
    """Write an object.

    Args:
        location: where to.
        body: what.
        content_type: the type that it is served with.

    Raises:
        Unavailable: S3 cannot be reached, or asks to come back later.
        ServingError: this endpoint may not write there, or there is no such bucket.
    """
    try:
        _client().put_object(Bucket=location.bucket, Key=location.key, Body=body, ContentType=content_type)
    except Exception as error:  # as above
        raise _failure(error, "the result cannot be stored") from error


def _client() -> Any:
    """This process's one client, made on first use: boto3's clients can be shared by threads, its sessions cannot."""
    global _made
    with _lock:
        if _made is None:
            import boto3  # here, as nothing else needs it
            from botocore.config import Config

            _made = boto3.session.Session().client(
                "s3",
                config=Config(
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    read_timeout=_READ_TIMEOUT_S,
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                    max_pool_connections=_CONNECTIONS,
                ),
            )
        return _made


def _failure(error: Exception, what: str) -> ServingError:
    """What an error of botocore's is to a client. Its own text may name accounts and roles: only the log shows the cause."""
    if _passes(error):
        return Unavailable(f"{what} now: {_code(error) or 'S3 does not answer in time'}")
    return ServingError(f"{what}: {_code(error) or 'the log has the reason under this request id'}")


def _passes(error: Exception) -> bool:
    from botocore import exceptions
    from urllib3.exceptions import HTTPError  # what reading below botocore raises

    if isinstance(error, exceptions.ClientError):
        return _code(error) in _PASSING or _status(error) >= 500
    unreachable = exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError | HTTPError | OSError
    return isinstance(error, unreachable)


def _code(error: Exception) -> str:
    """AWS's code, such as AccessDenied; "" where S3 has not answered."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _status(error: Exception) -> int:
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: Exception) -> dict[str, Any]:
    """What S3 answered, taken apart; nothing where it did not, which botocore's errors of the connection say with None."""
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}
