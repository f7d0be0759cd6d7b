"""Which trace a request belongs to where its client began none: the one that its inference id names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

INFERENCE_ID = "x-amzn-sagemaker-inference-id"
_HEX = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def trace_id(headers: Mapping[str, str]) -> int | None:
    """A trace's number from the inference id; None where the request has none.

    An id of 32 hexadecimal digits or a UUID is the number itself, so that one can be looked up by the other; any other text
    gives the first half of its SHA-256.

    Args:
        headers: Names in lower case.
    """
    text = headers.get(INFERENCE_ID, "").strip()
    if not text:
        return None
    if _HEX.fullmatch(text) and (number := int(text.replace("-", ""), 16)):  # a trace of number 0 is none
        return number
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
