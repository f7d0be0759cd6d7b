from __future__ import annotations

import asyncio
import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from multigpu_inference import ipc
from multigpu_inference.ipc import FrameError, FrameSocket, FrameStream, FrameTooLarge

MEGABYTES_5 = bytes(range(256)) * (5 * 4096)

BLOBS: list[list[bytes]] = [[], [b"body"], [b""], [b"", b"a", b""], [b"%d" % i for i in range(1000)], [MEGABYTES_5]]
NAMES = ["none", "one", "empty", "empty ones between", "a thousand", "5 MB"]


@pytest.fixture
def pair() -> Iterator[tuple[FrameSocket, FrameSocket]]:
    left, right = map(FrameSocket, socket.socketpair())
    left.settimeout(10)
    right.settimeout(10)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, FrameSocket]]:
    """A plain socket, and our end opposite."""
    theirs, ours = socket.socketpair()
    frames = FrameSocket(ours)
    frames.settimeout(10)
    yield theirs, frames
    theirs.close()
    frames.close()


def head(length: int, *blobs: int) -> bytes:
    return struct.pack(f"!IH{len(blobs)}Q", length, len(blobs), *blobs)


def a_frame() -> bytes:
    body = pickle.dumps("message")
    return head(len(body), 4) + body + b"blob"


@pytest.mark.parametrize("blobs", BLOBS, ids=NAMES)
def test_a_frame_arrives_as_it_was_sent(pair: tuple[FrameSocket, FrameSocket], blobs: list[bytes]) -> None:
    sender = threading.Thread(target=pair[0].send, args=({"a": 1}, blobs))
    sender.start()
    message, received = pair[1].receive()
    assert (message, [bytes(blob) for blob in received]) == ({"a": 1}, blobs)
    sender.join()


def test_frames_arrive_in_order(pair: tuple[FrameSocket, FrameSocket]) -> None:
    for number in range(20):
        pair[0].send(number, [b"x" * number])
    for number in range(20):
        assert pair[1].receive() == (number, [bytearray(b"x" * number)])


def test_blobs_arrive_writable(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[0].send("message", [b"read only"])
    _, (blob,) = pair[1].receive()
    blob[0] = 0
    assert blob == b"\0ead only"


def test_a_blob_may_be_any_buffer(pair: tuple[FrameSocket, FrameSocket]) -> None:
    numbers = memoryview(b"\1\0\0\0\2\0\0\0").cast("I")
    pair[0].send("message", [bytearray(b"a"), memoryview(b"b"), numbers])
    assert pair[1].receive()[1] == [b"a", b"b", b"\1\0\0\0\2\0\0\0"]


def test_the_end_between_frames_is_the_end_of_the_stream(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[0].send("message")
    pair[0].close()
    assert pair[1].receive() == ("message", [])
    with pytest.raises(EOFError):
        pair[1].receive()


@pytest.mark.parametrize("length", range(1, len(a_frame())))
def test_the_end_within_a_frame_is_an_error(raw: tuple[socket.socket, FrameSocket], length: int) -> None:
    raw[0].sendall(a_frame()[:length])
    raw[0].close()
    with pytest.raises(FrameError, match="within a frame"):
        raw[1].receive()


def test_a_frame_that_comes_byte_by_byte_is_a_frame(raw: tuple[socket.socket, FrameSocket]) -> None:
    def drip() -> None:
        for byte in a_frame():
            raw[0].sendall(bytes([byte]))

    sender = threading.Thread(target=drip)
    sender.start()
    assert raw[1].receive() == ("message", [bytearray(b"blob")])
    sender.join()


def test_a_message_over_the_limit_is_refused_before_it_is_read(raw: tuple[socket.socket, FrameSocket]) -> None:
    raw[0].sendall(head(ipc.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(FrameError, match="over the limit of 67108864"):
        raw[1].receive()


def test_a_blob_over_the_limit_is_refused_before_it_is_read(raw: tuple[socket.socket, FrameSocket]) -> None:
    raw[0].sendall(head(10, 5, ipc.MAX_BLOB_BYTES + 1))
    with pytest.raises(FrameError, match="a blob of 4294967297 bytes is over the limit"):
        raw[1].receive()


def test_more_blobs_than_a_head_can_say_are_not_sent(pair: tuple[FrameSocket, FrameSocket]) -> None:
    with pytest.raises(FrameTooLarge, match="65536 blobs of up to 0 bytes are too many"):
        pair[0].send("message", [b""] * 65_536)


def test_sending_to_who_has_gone_is_an_os_error(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[1].close()
    with pytest.raises(OSError, match="Broken pipe"):
        pair[0].send("message")


def test_waiting_ends_at_the_time_limit(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[1].settimeout(0.01)
    with pytest.raises(TimeoutError):
        pair[1].receive()


def test_connects_to_a_socket_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client = FrameSocket.connect(str(tmp_path / "s"), 5.0)
        server = FrameSocket(listener.accept()[0])
    client.send("hello")
    assert server.receive() == ("hello", [])
    client.close()
    server.close()


def test_connecting_where_nobody_listens_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FrameSocket.connect(str(tmp_path / "s"), 5.0)


@pytest.mark.parametrize("blobs", BLOBS, ids=NAMES)
def test_stream_and_socket_understand_each_other(blobs: list[bytes]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        stream, frames = await FrameStream.from_socket(ours), FrameSocket(theirs)
        echo = asyncio.create_task(asyncio.to_thread(lambda: frames.send(*frames.receive())))
        await stream.send(("ping", 1), blobs)
        assert await stream.receive() == (("ping", 1), blobs)
        await echo
        stream.close()
        frames.close()

    asyncio.run(main())


def test_frames_of_several_senders_do_not_mix() -> None:
    async def main() -> None:
        left, right = [await FrameStream.from_socket(end) for end in socket.socketpair()]
        senders = [left.send(number, [bytes([number]) * 300_000]) for number in range(8)]

        async def hear() -> set[int]:
            heard = set()
            for _ in senders:
                number, (blob,) = await right.receive()
                assert blob == bytes([number]) * 300_000
                heard.add(number)
            return heard

        heard, *_ = await asyncio.gather(hear(), *senders)
        assert heard == set(range(8))
        left.close()
        right.close()

    asyncio.run(main())


def test_a_sender_that_is_cancelled_leaves_no_frame_cut_short() -> None:
    async def main() -> None:
        left, right = [await FrameStream.from_socket(end) for end in socket.socketpair()]
        sending = asyncio.create_task(left.send("first", [MEGABYTES_5]))
        await asyncio.sleep(0)  # it has begun, and waits for a reader
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        last = asyncio.create_task(left.send("second"))
        assert await right.receive() == ("first", [MEGABYTES_5])
        assert await right.receive() == ("second", [])
        await last
        left.close()
        right.close()

    asyncio.run(main())


@pytest.mark.parametrize("length", range(len(a_frame())))
def test_the_end_of_a_stream_is_an_eof_error_wherever_it_comes(length: int) -> None:
    async def main() -> None:
        theirs, ours = socket.socketpair()
        stream = await FrameStream.from_socket(ours)
        theirs.sendall(a_frame()[:length])
        theirs.close()
        with pytest.raises(EOFError):
            await stream.receive()
        stream.close()

    asyncio.run(main())


def test_a_stream_refuses_a_message_over_the_limit() -> None:
    async def main() -> None:
        theirs, ours = socket.socketpair()
        stream = await FrameStream.from_socket(ours)
        theirs.sendall(head(ipc.MAX_MESSAGE_BYTES + 1))
        with pytest.raises(FrameError):
            await stream.receive()
        stream.close()
        theirs.close()

    asyncio.run(main())


def test_a_stream_to_who_has_gone_is_an_os_error() -> None:
    async def main() -> None:
        theirs, ours = socket.socketpair()
        stream = await FrameStream.from_socket(ours)
        theirs.close()

        async def send_until_it_is_noticed() -> None:
            while True:
                await stream.send("message", [bytes(1 << 20)])

        with pytest.raises(OSError, match=r"Broken pipe|Connection"):
            await send_until_it_is_noticed()
        stream.close()

    asyncio.run(main())
