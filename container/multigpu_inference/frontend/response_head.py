"""Status line and headers of an answer, always of one length.

The last thing on a request's way back that is ours; runs in the front-end workers. Multi-model-server shrinks its read
buffer while answers are small, and gives up a worker whose answer's header block then does not arrive in one read. So every
block is padded to one length: with spaces at the end of the custom attributes, which HTTP does not count as part of a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from multigpu_inference.frontend.answer_headers import (
    MAX_ATTRIBUTES_LENGTH,
    RETRY_AFTER_HEADER,
    attributes_line,
    plain_content_type,
)

# What a whole block's values have in length: attributes, reason, and the content type, which travels twice.
BLOCK_LENGTH = MAX_ATTRIBUTES_LENGTH
_BYTES_PER_HEADER = 8  # two lengths, which multi-model-server's protocol puts before a name and its value

# Multi-model-server blocks the worker on a reason that is not plain ASCII, so a reason never comes from elsewhere.
_REASONS = {status.value: status.phrase for status in HTTPStatus if status == 200 or status >= 400}


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What goes before an answer's body.

    Attributes:
        status: HTTP status.
        reason: Its phrase, fixed.
        content_type: Of the body.
        attributes: Value of `ATTRIBUTES_HEADER`, padded.
        retry_after: Value of `RETRY_AFTER_HEADER`; "" where the answer has none.
    """

    status: int
    reason: str
    content_type: str
    attributes: str
    retry_after: str = ""

    @classmethod
    def build(
        cls,
        status: int,
        content_type: str,
        request_id: str,
        attributes: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> ResponseHead:
        """Make the head of an answer. What cannot stand in a header is replaced, what does not fit is left out.

        Args:
            status: HTTP status; 500 where it is not one that we use.
            content_type: As the engine says.
            request_id: Always the first attribute.
            attributes: The others, in their order.
            retry_after_s: When to come again; a client that is SageMaker's does not see it.
        """
        status = status if status in _REASONS else 500
        reason = _REASONS[status]
        content_type = plain_content_type(content_type)
        retry_after = "" if retry_after_s is None else str(retry_after_s)
        room = BLOCK_LENGTH - len(reason) - 2 * len(content_type)
        if retry_after:
            room -= len(RETRY_AFTER_HEADER) + len(retry_after) + _BYTES_PER_HEADER
        line = attributes_line(request_id, attributes or {}, room)
        return cls(status, reason, content_type, line.ljust(room), retry_after)
