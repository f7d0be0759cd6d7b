"""Messages of `application/vnd.amazon.eventstream`, in which `invoke_endpoint_with_response_stream` gets its answer.

total length, length of the headers, CRC of these two │ headers │ payload │ CRC of all before it

All numbers are 32 bits, big-endian; CRCs are zlib's; a header is its name, the type 7 (text) and its value, name and value each
after its length.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_TEXT = 7
# Two lengths and their CRC, and the CRC at the end.
_FRAME_BYTES = 16


def payload_part(payload: bytes) -> bytes:
    """A piece of the answer."""
    headers = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    return encode(headers, payload)


def stream_error(code: str, message: str) -> bytes:
    """What ends an answer that cannot be completed; boto3 raises it from the stream.

    Args:
        code: `ModelInvocationTimeExceeded` or `StreamBroken`.
        message: For people.
    """
    headers = {":message-type": "exception", ":exception-type": "ModelStreamError", ":content-type": "application/json"}
    return encode(headers, json.dumps({"Message": message, "ErrorCode": code}).encode())


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message."""
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _TEXT, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack("!II", _FRAME_BYTES + len(head) + len(payload), len(head))
    message = lengths + struct.pack("!I", crc32(lengths)) + head + payload
    return message + struct.pack("!I", crc32(message))
