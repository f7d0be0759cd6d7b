"""Event stream messages, read with botocore's own decoder, which checks lengths and checksums."""

from __future__ import annotations

import json

import pytest
from botocore.eventstream import EventStreamBuffer

from runtime_event_stream import payload_part, stream_error


@pytest.mark.parametrize("payload", [b"x", bytes(range(256)) * 300], ids=["one byte", "75 KB"])
def test_a_piece_of_an_answer(payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(payload_part(payload))
    (message,) = list(buffer)
    assert message.headers == {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }
    assert message.payload == payload


def test_several_messages_that_come_in_one_read() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(payload_part(b"first") + payload_part(b"second"))
    assert [message.payload for message in buffer] == [b"first", b"second"]


def test_an_error() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(stream_error("StreamBroken", "cut off: “…”"))
    (message,) = list(buffer)
    assert message.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(message.payload) == {"Message": "cut off: “…”", "ErrorCode": "StreamBroken"}
