"""The AWS account: a thin client that names calls as boto3 does and turns AWS's errors into ours.

Everything that reads or changes the account goes through here, with time injected, so that a test can make it pass quickly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from deploy_error import Denied, DeployError, Invalid, NoCapacity, TimedOut

CAPACITY = ("InsufficientInstanceCapacity", "InsufficientCapacity", "insufficient capacity", "Unable to provision")
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
_NOT_FOUND = (
    "404",
    "NoSuchBucket",
    "NoSuchEntity",
    "NoSuchKey",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
    "LifecyclePolicyNotFoundException",
    "ObjectNotFoundException",
    "RepositoryNotFoundException",
    "ResourceNotFoundException",
    "ResourceNotFound",
)
_DENIED = (
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "NotAuthorized",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
)
# Of credentials that were good once, and of a clock that is wrong: no policy helps.
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed")
_SERVER_ERROR = 500
_QUOTA = ("LimitExceeded", "LimitExceededException", "ResourceLimitExceeded", "ServiceQuotaExceededException")
_EXISTS = (
    "BucketAlreadyOwnedByYou",
    "EntityAlreadyExists",
    "ImageAlreadyExistsException",
    "RepositoryAlreadyExistsException",
    "ResourceAlreadyExistsException",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who deploys, and where.

    Attributes:
        account_id: Twelve digits.
        region: Such as eu-central-1.
        partition: `aws`, `aws-cn`, `aws-us-gov`.
        arn: Of the caller.
    """

    account_id: str
    region: str
    partition: str
    arn: str


class Account:
    """AWS as the deployment sees it."""

    def __init__(
        self, session: boto3.Session, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is called yet.

        Args:
            session: With the profile and the region as in any boto3 tool.
            sleep: Waits that many seconds.
            clock: Seconds that only grow.
        """
        self.sleep = sleep
        self.clock = clock
        self._session = session
        self._clients: dict[tuple[str, str | None, bool], Any] = {}

    def identity(self) -> Identity:
        """Ask who the caller is.

        Raises:
            Denied: without credentials that AWS takes.
            Invalid: without a region.
        """
        region = self._session.region_name
        if region is None:
            raise Invalid("no region: set AWS_REGION or AWS_DEFAULT_REGION, or give --region")
        answer = self.call("sts", "get_caller_identity")
        return Identity(answer["Account"], region, answer["Arn"].split(":")[1], answer["Arn"])

    def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        """Make one call.

        Args:
            service: As boto3 calls it.
            operation: The client's method.
            request: Its arguments.

        Returns:
            What boto3 returns.

        Raises:
            DeployError: of the class that its exit code needs.
        """
        return self.call_in(None, service, operation, **request)

    def call_in(self, region: str | None, service: str, operation: str, **request: Any) -> dict[str, Any]:
        """The same in another region; None: in the session's."""
        try:
            answer: dict[str, Any] | None = getattr(self.client(service, region), operation)(**request)
            return answer or {}
        except (ClientError, BotoCoreError, S3UploadFailedError) as error:
            raise translate(f"{service}.{operation}", error) from error

    def find(self, service: str, operation: str, **request: Any) -> dict[str, Any] | None:
        """The same for a call that describes one thing; None where there is no such thing."""
        try:
            return self.call(service, operation, **request)
        except DeployError as error:
            if is_not_found(error.__cause__):
                return None
            raise

    def listed(self, service: str, operation: str, key: str, **request: Any) -> Iterator[Any]:
        """All entries of a call that answers in pages."""
        try:
            for page in self.client(service).get_paginator(operation).paginate(**request):
                yield from page.get(key, ())
        except (ClientError, BotoCoreError) as error:
            raise translate(f"{service}.{operation}", error) from error

    def client(self, service: str, region: str | None = None, config: Config | None = None) -> Any:
        """boto3's client of a service, made once; and once more with settings of its own, of which a service has one kind."""
        key = (service, region, config is None)
        if key not in self._clients:
            config = config or Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
            try:
                self._clients[key] = self._session.client(service, region_name=region, config=config)
            except (BotoCoreError, ValueError) as error:
                raise translate(service, error) from error
        return self._clients[key]


def open_session(profile: str | None, region: str | None) -> boto3.Session:
    """boto3's session for a profile and a region, each None for what the environment says."""
    try:
        return boto3.Session(profile_name=profile, region_name=region)
    except BotoCoreError as error:
        raise translate("session", error) from error


def error_code(error: BaseException | None) -> str:
    """AWS's word for an error; empty where it is not AWS's."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def is_not_found(error: BaseException | None) -> bool:
    """Whether AWS says that there is no such thing; SageMaker has no code of its own for it."""
    return error_code(error) in _NOT_FOUND or (error_code(error) == "ValidationException" and "Could not find" in str(error))


def is_already_there(error: BaseException | None) -> bool:
    """Whether AWS says that what is to be made is there already."""
    return error_code(error) in _EXISTS or (error_code(error) == "ValidationException" and "already exist" in str(error))


def translate(call: str, error: Exception) -> DeployError:
    """AWS's error as ours, with what to do."""
    if isinstance(error, _NO_CREDENTIALS):
        return Denied(
            f"no AWS credentials ({_message(error)}): configure them as for any boto3 tool (aws configure, AWS_PROFILE, "
            "AWS_ACCESS_KEY_ID)"
        )
    if isinstance(error, ProfileNotFound):
        return Denied(f"{error}: name one of ~/.aws/config with --profile or AWS_PROFILE")
    if isinstance(error, NoRegionError):
        return Invalid("no region: set AWS_REGION or AWS_DEFAULT_REGION, or give --region")
    if isinstance(error, HTTPClientError | BotoConnectionError):
        return TimedOut(f"{call}: AWS cannot be reached: {error}: look at the network, then run the command again")
    code, message = error_code(error), _message(error)
    if any(word in message or word in code for word in CAPACITY):
        return NoCapacity(f"{call}: {message}")
    if code in _EXPIRED:
        return Denied(f"{call}: {message}: get new credentials, and see that this machine's clock is right")
    if code in _QUOTA:
        return Denied(f"{call}: {message}: ask for more under Service Quotas, or use fewer or other instances")
    if code in _DENIED or "not authorized to perform" in message:
        return Denied(f"{call}: {message}: `create_endpoint.py policies` prints what the one who deploys must be allowed")
    if code.startswith("Throttling") or code in ("TooManyRequestsException", "RequestLimitExceeded"):
        return TimedOut(f"{call}: {message}: run the command again in a minute")
    if isinstance(error, ClientError) and error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _SERVER_ERROR:
        return TimedOut(f"{call}: AWS failed: {message}: run the command again in a minute")
    return Invalid(f"{call}: {message}")


def _message(error: Exception) -> str:
    if isinstance(error, ClientError):
        return " ".join(str(error.response.get("Error", {}).get("Message", error)).split()).rstrip(".")
    return " ".join(str(error).split()).rstrip(".")


def tags_of(tags: Any) -> Mapping[str, str]:
    """AWS's list of tags as a mapping; some services write `key` and `value` small."""
    return {tag.get("Key", tag.get("key")): tag.get("Value", tag.get("value", "")) for tag in tags}
