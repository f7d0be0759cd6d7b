"""What stands in an answer's headers, whichever front end writes them.

The last thing on a request's way back that is ours. What user code and the engine say goes into headers here, so what
cannot stand in one is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
RETRY_AFTER_HEADER = "Retry-After"
# SageMaker passes on at most this many characters of custom attributes.
MAX_ATTRIBUTES_LENGTH = 1024
# Leaves the attributes more than 700 characters where multi-model-server sends it beside them.
MAX_CONTENT_TYPE_LENGTH = 128
_UNNAMED_CONTENT_TYPE = "application/octet-stream"
_PLAIN_CONTENT_TYPE = re.compile(r"[!-~]([ -~]*[!-~])?")
_NOT_PLAIN_IN_ATTRIBUTES = re.compile(r"[^!-:<-~]")


def plain_content_type(content_type: str) -> str:
    """A content type as it can stand in a header; that of unnamed bytes where this one cannot."""
    if len(content_type) <= MAX_CONTENT_TYPE_LENGTH and _PLAIN_CONTENT_TYPE.fullmatch(content_type):
        return content_type
    return _UNNAMED_CONTENT_TYPE


def attributes_line(request_id: str, attributes: Mapping[str, str], room: int = MAX_ATTRIBUTES_LENGTH) -> str:
    """The value of `ATTRIBUTES_HEADER`: `request_id=…;name=value;…`, less what does not fit into `room` characters."""
    line = ""
    for name, value in {"request_id": request_id, **attributes}.items():
        pair = f"{_plain(name)}={_plain(str(value))}"
        longer = f"{line};{pair}" if line else pair
        if len(longer) <= room:
            line = longer
    return line


def _plain(text: str) -> str:
    return _NOT_PLAIN_IN_ATTRIBUTES.sub("_", text)
