"""What a front end makes of an HTTP request, whichever it is: an invocation, and of a form the one body in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from multigpu_inference.errors import BadRequest, UnsupportedMediaType
from multigpu_inference.messages import Invocation

# How long after a request's deadline the engine's own 504 is still waited for.
ENGINE_GRACE_S = 1.0
_BODY = "body"
_Part = TypeVar("_Part")


def make_invocation(
    request_id: str, content_type: str, headers: Mapping[str, str], arrived: float, request_timeout_s: float
) -> Invocation:
    """A request as the engine takes it.

    Args:
        request_id: Made by the front end.
        content_type: Of the body, which in a form is the part's.
        headers: The request's, names in lower case.
        arrived: When it came, in monotonic seconds.
        request_timeout_s: From then to its deadline.
    """
    return Invocation(request_id, content_type, headers.get("accept", ""), headers, arrived, arrived + request_timeout_s)


def refuse_url_encoded(content_type: str) -> None:
    """Refuse what curl sends where nobody names a type: a binary body in it has been taken for a form's text."""
    if content_type.lower().startswith("application/x-www-form-urlencoded"):
        raise UnsupportedMediaType("a body cannot be sent as a URL-encoded form; name its own type in Content-Type")


def of_form(parts: Sequence[tuple[str, _Part]]) -> _Part:
    """The part of a form that is the request's body: the one named `body`, or the only one there is.

    Args:
        parts: Names and parts, in order.
    """
    named = [part for name, part in parts if name == _BODY]
    if len(named) == 1:
        return named[0]
    if len(parts) != 1:
        raise BadRequest(f"a form must have one part, or one named body; this one has {len(parts)}")
    return parts[0][1]
