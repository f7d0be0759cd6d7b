from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from multigpu_inference.arena import INLINE_BYTES, Arena, end_of
from multigpu_inference.errors import DeadlineExceeded, Exhausted, Unavailable
from multigpu_inference.frontend.client import EngineClient
from multigpu_inference.ipc import FrameSocket
from multigpu_inference.messages import Answer, ArenaOpened, Invocation
from support import files_up_to, wait_until

LARGE = bytes(range(256)) * 1000

Behaviour = Callable[[FrameSocket], None]


class Engine:
    """Treats its first connection by the first of its behaviours, and so on; the last one stays."""

    def __init__(self, path: Path, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            behave = self._behaviours[min(self.connections, len(self._behaviours) - 1)]
            self.connections += 1
            frames = FrameSocket(connection)
            try:
                behave(frames)
            except (EOFError, OSError):
                pass
            finally:
                frames.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _request(frames: FrameSocket) -> tuple[Invocation, list[Any], list[int]]:
    """The next request, with the descriptors of arenas that were opened before it."""
    opened = []
    while isinstance((frame := frames.receive())[0], ArenaOpened):
        opened.append(frame[1][0].take())
    return frame[0], frame[1], opened


def _echo(frames: FrameSocket) -> None:
    arenas = list[Arena]()
    while True:
        invocation, blobs, opened = _request(frames)
        arenas += map(Arena, opened)
        frames.send(Answer(invocation.request_id, 200, "a/b", arena_used=end_of(blobs)), blobs)


def _echo_once(frames: FrameSocket) -> None:
    invocation, blobs, opened = _request(frames)
    _ = [*map(Arena, opened)]
    frames.send(Answer(invocation.request_id, 200, "a/b"), blobs)


def _hang_up_after_the_request(frames: FrameSocket) -> None:
    _ = [*map(Arena, _request(frames)[2])]


def _answer_late(frames: FrameSocket) -> None:
    invocation, blobs, opened = _request(frames)
    _ = [*map(Arena, opened)]
    time.sleep(0.3)
    frames.send(Answer(invocation.request_id, 200, "late"), blobs)


def _answer_another_request(frames: FrameSocket) -> None:
    _ = [*map(Arena, _request(frames)[2])]
    frames.send(Answer("another", 200, "a/b"), [b"not yours"])


def _answer_without_a_body(frames: FrameSocket) -> None:
    invocation, _, opened = _request(frames)
    _ = [*map(Arena, opened)]
    frames.send(Answer(invocation.request_id, 200, "a/b"))


def _never_read(frames: FrameSocket) -> None:
    time.sleep(0.5)


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fe-") as folder:
        yield Path(folder, "engine.sock")


@pytest.fixture
def engine(path: Path) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(*behaviours: Behaviour) -> Engine:
        made.append(Engine(path, *behaviours))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(path: Path) -> Iterator[EngineClient]:
    made = EngineClient(str(path), grace_s=0.05)
    yield made
    made.close()


def _invocation(request_id: str = "1", timeout_s: float = 5.0) -> Invocation:
    now = time.monotonic()
    return Invocation(request_id, "a/b", "", {}, now, now + timeout_s)


def test_one_connection_serves_many_requests(engine: Callable[..., Engine], client: EngineClient) -> None:
    server = engine(_echo)
    for number in range(5):
        answer, body = client.invoke(_invocation(str(number)), f"body {number}".encode())
        assert (answer.request_id, bytes(body)) == (str(number), f"body {number}".encode())
    assert server.connections == 1


def test_a_connection_that_ended_between_two_requests_is_made_again(
    engine: Callable[..., Engine], client: EngineClient
) -> None:
    server = engine(_echo_once, _echo)
    for number in range(3):
        assert client.invoke(_invocation(), b"%d" % number)[1] == b"%d" % number
    assert server.connections == 2


def test_a_request_whose_connection_ends_is_sent_once_more(engine: Callable[..., Engine], client: EngineClient) -> None:
    server = engine(_hang_up_after_the_request, _echo)
    assert client.invoke(_invocation(), b"x")[1] == b"x"
    assert server.connections == 2


@pytest.mark.parametrize("behaviour", [_hang_up_after_the_request, _answer_another_request, _answer_without_a_body])
def test_an_engine_that_gives_no_answer_twice_is_unavailable(
    engine: Callable[..., Engine], client: EngineClient, behaviour: Behaviour
) -> None:
    server = engine(behaviour)
    with pytest.raises(Unavailable):
        client.invoke(_invocation(), b"x")
    assert server.connections == 2


def test_a_late_answer_never_reaches_the_next_request(engine: Callable[..., Engine], client: EngineClient) -> None:
    engine(_answer_late, _echo)
    with pytest.raises(DeadlineExceeded):
        client.invoke(_invocation("1", timeout_s=0.05), b"first")
    answer, body = client.invoke(_invocation("2"), b"second")
    assert (answer.request_id, answer.content_type, body) == ("2", "a/b", b"second")


def test_an_engine_that_does_not_read_is_a_missed_deadline(engine: Callable[..., Engine], client: EngineClient) -> None:
    engine(_never_read)
    with pytest.raises(DeadlineExceeded):
        client.invoke(_invocation(timeout_s=0.05), bytes(8 << 20))


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 5 << 20, 100 << 20])
def test_a_body_of_any_size_comes_back(engine: Callable[..., Engine], client: EngineClient, size: int) -> None:
    engine(_echo)
    body = bytes(size)
    for _ in range(2):
        assert client.invoke(_invocation(), body)[1] == body


def test_one_arena_serves_many_requests_until_it_is_not_free(engine: Callable[..., Engine], client: EngineClient) -> None:
    seen = list[int]()

    def spoil_the_third(frames: FrameSocket) -> None:
        arenas = list[Arena]()
        while True:
            invocation, blobs, opened = _request(frames)
            arenas += map(Arena, opened)
            seen.append(invocation.arena)
            assert arenas[-1].read(blobs[0]) == LARGE
            frames.send(Answer(invocation.request_id, 200, "a/b", arena_is_free=len(seen) != 3), blobs)

    engine(spoil_the_third)
    for _ in range(5):
        assert client.invoke(_invocation(), LARGE)[1] == LARGE
    assert seen == [0, 0, 0, 1, 1]


def test_a_large_body_is_received_where_the_engine_reads_it(engine: Callable[..., Engine], client: EngineClient) -> None:
    engine(_echo)
    for _ in range(3):
        body = client.body_buffer(len(LARGE))
        body[:] = LARGE
        other = client.body_buffer(len(LARGE))  # another part of the same form
        other[:] = LARGE[::-1]
        assert client.invoke(_invocation(), body)[1] == LARGE
        client.forget_body()


def test_a_body_that_there_is_no_memory_for_is_taken_in_and_refused(
    engine: Callable[..., Engine], client: EngineClient
) -> None:
    engine(_echo)
    with files_up_to(1000):
        body = client.body_buffer(len(LARGE))
        assert len(body) == len(LARGE)
        with pytest.raises(Exhausted):
            client.invoke(_invocation(), body)
    assert client.invoke(_invocation(), LARGE)[1] == LARGE


def test_a_body_in_an_arena_survives_the_connection(engine: Callable[..., Engine], client: EngineClient) -> None:
    engine(_hang_up_after_the_request, _echo)
    body = client.body_buffer(len(LARGE))
    body[:] = LARGE
    assert client.invoke(_invocation(), body)[1] == LARGE


def test_no_descriptor_is_left_behind(engine: Callable[..., Engine], client: EngineClient) -> None:
    engine(_echo_once, _echo_once, _echo)
    before = psutil.Process().num_fds()
    for _ in range(5):
        client.invoke(_invocation(), LARGE)
    client.close()
    assert wait_until(lambda: psutil.Process().num_fds() == before, 10)


def test_an_answer_within_the_grace_period_counts(engine: Callable[..., Engine], path: Path) -> None:
    engine(_answer_late)
    patient = EngineClient(str(path), grace_s=5.0)
    assert patient.invoke(_invocation(timeout_s=0.0), b"x")[0].content_type == "late"
    patient.close()


def test_nobody_listening_is_unavailable_at_once(client: EngineClient, path: Path) -> None:
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(Unavailable):
            client.invoke(_invocation(), b"x")
        path.touch()  # then a file that is no socket
    assert time.monotonic() - started < 1.0
