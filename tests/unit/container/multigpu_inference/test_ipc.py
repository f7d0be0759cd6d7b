from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import resource
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from multigpu_inference import ipc
from multigpu_inference.ipc import FrameError, FrameSocket, FrameStream, Slice, size_of, socket_pair
from multigpu_inference.messages import Failure, Invocation, Task

MEGABYTES_5 = bytes(range(256)) * (5 * 4096)

BLOBS: list[list[bytes]] = [[], [b"body"], [b""], [b"", b"a", b""], [b"%d" % i for i in range(1000)], [MEGABYTES_5]]
NAMES = ["none", "one", "empty", "empty ones between", "a thousand", "5 MB"]


@pytest.fixture
def pair() -> Iterator[tuple[FrameSocket, FrameSocket]]:
    left, right = map(FrameSocket, socket_pair())
    left.settimeout(10)
    right.settimeout(10)
    yield left, right
    left.close()
    right.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(in_time())


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() == before


@contextlib.contextmanager
def no_room_for_descriptors() -> Iterator[None]:
    """As where this process has as many descriptors as it may."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("blobs", BLOBS, ids=NAMES)
def test_a_frame_arrives_as_it_was_sent(pair: tuple[FrameSocket, FrameSocket], blobs: list[bytes]) -> None:
    with no_descriptor_left():
        pair[0].send({"a": 1}, blobs)
        assert pair[1].receive() == ({"a": 1}, blobs)


def test_a_message_of_any_size_arrives(pair: tuple[FrameSocket, FrameSocket]) -> None:
    for size in (0, ipc.MAX_PACKET_BYTES - 100, ipc.MAX_PACKET_BYTES, ipc.MAX_PACKET_BYTES + 1, 10 << 20):
        pair[0].send("x" * size)
        assert pair[1].receive() == ("x" * size, [])


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


def test_a_blob_may_be_any_buffer_or_a_place_in_an_arena(pair: tuple[FrameSocket, FrameSocket]) -> None:
    numbers = memoryview(b"\1\0\0\0\2\0\0\0").cast("I")
    pair[0].send("message", [bytearray(b"a"), memoryview(b"b"), numbers, Slice(64, 10)])
    received = pair[1].receive()[1]
    assert received == [b"a", b"b", b"\1\0\0\0\2\0\0\0", Slice(64, 10)]
    assert list(map(size_of, received)) == [1, 1, 8, 10]


def test_a_descriptor_arrives_as_the_last_blob(pair: tuple[FrameSocket, FrameSocket]) -> None:
    with no_descriptor_left():
        reader, writer = os.pipe()
        pair[0].send("pipe", [b"x"], descriptor=writer)
        os.close(writer)
        message, (blob, descriptor) = pair[1].receive()
        assert (message, blob) == ("pipe", b"x")
        taken = descriptor.take()
        os.write(taken, b"through")
        os.close(taken)
        assert os.read(reader, 10) == b"through"
        os.close(reader)


def test_a_descriptor_that_nobody_takes_is_closed(pair: tuple[FrameSocket, FrameSocket]) -> None:
    with no_descriptor_left():
        pair[0].send("stdin", descriptor=0)
        pair[1].receive()


def test_a_received_descriptor_is_not_inherited(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[0].send("stdin", descriptor=0)
    (descriptor,) = pair[1].receive()[1]
    number = descriptor.take()
    assert not os.get_inheritable(number)
    os.close(number)


def test_a_frame_with_a_descriptor_must_fit_a_packet(pair: tuple[FrameSocket, FrameSocket]) -> None:
    with pytest.raises(ValueError, match="must fit a packet"):
        pair[0].send("x", [MEGABYTES_5], descriptor=0)


def test_the_end_is_the_end_of_the_stream(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[0].send("message")
    pair[0].close()
    assert pair[1].receive() == ("message", [])
    with pytest.raises(EOFError):
        pair[1].receive()


def test_what_was_sent_before_an_end_arrives_even_where_that_had_not_read_everything(
    pair: tuple[FrameSocket, FrameSocket],
) -> None:
    pair[1].send("never read")
    pair[0].send("last words")
    pair[0].close()
    assert pair[1].receive() == ("last words", [])
    with pytest.raises(EOFError):
        pair[1].receive()


def test_a_frame_whose_descriptor_finds_no_room_here_comes_without_it(pair: tuple[FrameSocket, FrameSocket]) -> None:
    with no_descriptor_left():
        pair[0].send("stdin", [b"x"], descriptor=0)
        with no_room_for_descriptors():
            assert pair[1].receive() == ("stdin", [b"x"])
        pair[0].send("again", descriptor=0)
        message, (descriptor,) = pair[1].receive()
        assert message == "again"
        os.close(descriptor.take())


def test_more_descriptors_than_one_are_an_error() -> None:
    theirs, ours = socket_pair()
    frames = FrameSocket(ours)
    with no_descriptor_left():
        socket.send_fds(theirs, [ipc.pack("m").data], [0] * 5)
        with pytest.raises(FrameError, match="cut off"):
            frames.receive()
    theirs.close()
    frames.close()


@pytest.mark.parametrize("data", [b"x", b"hello world", b"f", b"fgarbage", b"s", b"f" + pickle.dumps("no pair")])
def test_what_is_no_frame_is_an_error(data: bytes) -> None:
    theirs, ours = socket_pair()
    theirs.send(data)
    frames = FrameSocket(ours)
    with pytest.raises(FrameError, match="no frame of ours"):
        frames.receive()
    theirs.close()
    frames.close()


def test_a_packet_that_is_too_long_is_an_error() -> None:
    theirs, ours = socket_pair()
    theirs.send(bytes(ipc.MAX_PACKET_BYTES + 2))
    frames = FrameSocket(ours)
    with pytest.raises(FrameError, match="cut off"):
        frames.receive()
    theirs.close()
    frames.close()


def test_sending_to_who_has_gone_is_an_os_error(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[1].close()
    with no_descriptor_left(), pytest.raises(OSError, match="Broken pipe"):
        pair[0].send("message", [MEGABYTES_5])


def test_waiting_ends_at_the_time_limit(pair: tuple[FrameSocket, FrameSocket]) -> None:
    pair[1].settimeout(0.01)
    with pytest.raises(TimeoutError):
        pair[1].receive()


def test_connects_to_a_socket_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
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
        ours, theirs = socket_pair()
        stream, frames = FrameStream(ours), FrameSocket(theirs)
        echo = asyncio.create_task(asyncio.to_thread(lambda: frames.send(*frames.receive())))
        stream.send(("ping", 1), blobs)
        assert await stream.receive() == (("ping", 1), blobs)
        await echo
        stream.close()
        frames.close()

    run(main())


def test_what_a_slow_reader_has_no_room_for_waits_and_arrives_in_order() -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())
        for number in range(1000):  # many times what a socket holds
            left.send(number, [bytes(10_000)])
        assert [(await right.receive())[0] for _ in range(1000)] == list(range(1000))
        left.close()
        right.close()

    run(main())


def test_a_descriptor_that_waits_survives_its_owners_closing_it() -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())
        for number in range(1000):
            left.send(number, [bytes(10_000)])
        reader, writer = os.pipe()
        left.send("pipe", descriptor=writer)
        os.close(writer)
        for _ in range(1000):
            await right.receive()
        _, (descriptor,) = await right.receive()
        taken = descriptor.take()
        os.write(taken, b"x")
        os.close(taken)
        assert os.read(reader, 2) == b"x"
        os.close(reader)
        left.close()
        right.close()

    with no_descriptor_left():
        run(main())


def test_a_stream_that_is_closed_with_frames_unsent_leaves_no_descriptor() -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())
        for _ in range(100):
            left.send("spilled", [bytes(1 << 20)])
        left.close()
        left.close()
        right.close()
        with pytest.raises(OSError, match="closed"):
            left.send("more")

    with no_descriptor_left():
        run(main())


def test_who_gives_up_waiting_loses_no_frame() -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())
        waiting = asyncio.create_task(right.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        left.send("kept")
        assert (await right.receive())[0] == "kept"
        left.close()
        right.close()

    run(main())


@pytest.mark.parametrize("ending", ["theirs", "ours"])
def test_the_end_of_a_stream_is_an_eof_error_for_who_waits(ending: str) -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())
        waiting = asyncio.create_task(right.receive())
        await asyncio.sleep(0)
        (left if ending == "theirs" else right).close()
        with pytest.raises(EOFError):
            await waiting
        with pytest.raises(EOFError):
            await right.receive()
        left.close()
        right.close()

    run(main())


def test_a_stream_refuses_what_is_no_frame() -> None:
    async def main() -> None:
        theirs, ours = socket_pair()
        stream = FrameStream(ours)
        theirs.send(b"garbage")
        with pytest.raises(FrameError):
            await stream.receive()
        stream.close()
        theirs.close()

    run(main())


def test_a_stream_to_who_has_gone_is_an_os_error() -> None:
    async def main() -> None:
        theirs, ours = socket_pair()
        stream = FrameStream(ours)
        theirs.close()
        with pytest.raises(OSError, match=r"Broken pipe|Connection"):
            stream.send("message")
        stream.close()

    run(main())


def test_who_goes_while_frames_wait_for_it_ends_the_stream() -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())
        for _ in range(100):
            left.send("spilled", [bytes(1 << 20)])
        right.close()
        with pytest.raises((EOFError, OSError)):
            await left.receive()
        left.close()

    with no_descriptor_left():
        run(main())


def test_frames_are_delivered_as_they_come_those_that_waited_first() -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())
        taken = list[int]()
        left.send(0)
        left.send(1)
        await asyncio.sleep(0.01)
        delivering = asyncio.create_task(right.deliver(lambda message, blobs: taken.append(message)))
        await asyncio.sleep(0)
        for number in range(2, 300):
            left.send(number)
        while len(taken) < 300:
            await asyncio.sleep(0)
        assert taken == list(range(300))
        left.close()
        with pytest.raises(EOFError):
            await delivering
        right.close()

    run(main())


def test_an_error_of_who_takes_frames_is_the_end() -> None:
    async def main() -> None:
        left, right = (FrameStream(end) for end in socket_pair())

        def take(message: Any, blobs: list[Any]) -> None:
            raise KeyError(message)

        delivering = asyncio.create_task(right.deliver(take))
        await asyncio.sleep(0)
        left.send("strange")
        with pytest.raises(KeyError):
            await delivering
        left.close()
        right.close()

    run(main())


class _Bomb:
    """Does something where it is unpickled."""

    def __init__(self, make: Any, *arguments: Any) -> None:
        self._reduced = make, arguments

    def __reduce__(self) -> Any:
        return self._reduced


def _setting_an_attribute(cls: type) -> bytes:
    """A pickle that takes a class, gives it an attribute, and goes on as if nothing had been."""
    given = pickle.dumps((None, {"end": "changed"}), protocol=2)[2:-1]
    return b"\x80\x02c" + f"{cls.__module__}\n{cls.__name__}\n".encode() + given + b"b0" + pickle.dumps(("m", []), 2)[2:]


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps((_Bomb(os.mkdir, "bombed"), [])),
        pickle.dumps((_Bomb(eval, "__import__('os').mkdir('bombed')"), [])),
        pickle.dumps((Path("bombed"), [])),
        pickle.dumps((_Bomb(getattr, Slice, "__new__"), [])),
        pickle.dumps((Failure, [])),  # a class itself
        _setting_an_attribute(Slice),
    ],
    ids=["a function", "eval", "another class", "getattr", "a class", "an attribute"],
)
def test_nothing_but_messages_is_made_of_what_came(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    end = Slice.end
    theirs, ours = socket_pair()
    frames = FrameSocket(ours)
    theirs.send(b"f" + content)
    with contextlib.suppress(FrameError):
        message, _ = frames.receive()
        assert not isinstance(message, type)
    assert list(tmp_path.iterdir()) == []
    assert Slice.end is end
    theirs.close()
    frames.close()


def test_every_message_arrives(pair: tuple[FrameSocket, FrameSocket]) -> None:
    invocation = Invocation("id", "a/b", "", {"a": "b"}, 1.0, 2.0, {"c": "d"})
    for message in (invocation, Task(1, ("input_fn",), invocation, frozenset({"[0]"})), Failure(1, "BadRequest", "text")):
        pair[0].send(message, [Slice(1, 2)])
        assert pair[1].receive() == (message, [Slice(1, 2)])
