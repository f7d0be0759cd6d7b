"""What SageMaker's runtime answers in place of a prediction: each class with its HTTP status and its name on the wire.

boto3 makes exceptions of them: `x-amzn-errortype` becomes the error's code, the body's fields the response's.
"""

from __future__ import annotations

from typing import Any

# SageMaker's own words, as far as people have met them; what it says of a container that is gone is not known.
TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for each "
    "container in Amazon CloudWatch, resolve the issue, and try again."
)


class RuntimeFault(Exception):
    """The root: the text is safe to show to the caller.

    Attributes:
        status: HTTP status.
        kind: The error's name for boto3; empty: SageMaker gives none, and boto3 takes the status.
    """

    status = 500
    kind = "InternalFailure"

    def fields(self) -> dict[str, Any]:
        """The body, for JSON."""
        return {"Message": str(self)}


class ValidationFault(RuntimeFault):
    """No such endpoint, or a request that SageMaker refuses without asking the container."""

    status = 400
    kind = "ValidationError"


class UnknownOperation(RuntimeFault):
    """The runtime has no such operation."""

    status = 404
    kind = "UnknownOperationException"


class PayloadFault(RuntimeFault):
    """The request's body is larger than it may be."""

    status = 413
    kind = ""

    def __init__(self, limit_bytes: int) -> None:
        """In SageMaker's words."""
        super().__init__(f"HTTP content length exceeded {limit_bytes} bytes.")


class QueueFault(RuntimeFault):
    """No more asynchronous requests are taken for now."""

    status = 503
    kind = "ServiceUnavailable"


class ModelFault(RuntimeFault):
    """The container answered with an error, too late, or not at all.

    Attributes:
        original_status: The container's status; 0: it gave none.
        original_message: What it said; None: it could not be read to its end.
        log: Where its log is.
    """

    status = 424
    kind = "ModelError"

    def __init__(self, original_status: int, original_message: str | None, log: str = "") -> None:
        """In SageMaker's words."""
        who = "client" if 400 <= original_status < 500 else "server"
        said = (
            f'with message "{original_message}"'
            if original_message is not None
            else "and could not load the entire response body"
        )
        where = f" See {log} for more information." if log else ""
        super().__init__(f"Received {who} error ({original_status}) from primary {said}.{where}")
        self.original_status = original_status
        self.original_message = original_message
        self.log = log

    def fields(self) -> dict[str, Any]:
        """What boto3 has in `ClientError.response`."""
        return {
            "Message": str(self),
            "OriginalStatusCode": self.original_status,
            "OriginalMessage": self.original_message or "",
            "LogStreamArn": self.log,
        }
