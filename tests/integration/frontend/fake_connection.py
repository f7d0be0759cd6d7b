"""One connection to the `FakeEngine`: any number of requests at a time, each with an arena; and what else may be said."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multigpu_inference.arena import Arena, end_of
from multigpu_inference.ipc import Blob, FrameSocket
from multigpu_inference.messages import (
    HEARTBEAT_S,
    Answer,
    ArenaClosed,
    ArenaOpened,
    Cancellation,
    Exposition,
    Invocation,
    Message,
    Refusal,
    Scrape,
    Watch,
)

if TYPE_CHECKING:
    from integration.frontend.fake_engine import FakeEngine

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"
METRICS = b"# HELP fake_requests_total Requests.\n# TYPE fake_requests_total counter\nfake_requests_total 3.0\n"


@dataclass(frozen=True, eq=False)
class Held:
    """A request that waits for `FakeEngine.release`."""

    invocation: Invocation
    body: bytearray
    peer_pid: int
    answer: Callable[[Answer, bytes | bytearray], None]


class FakeConnection:
    """Serves one connection in the thread that calls `serve`."""

    def __init__(self, engine: FakeEngine, sock: socket.socket, peer_pid: int) -> None:
        self._engine = engine
        self._sock = sock
        self._frames = FrameSocket(sock)
        self._peer_pid = peer_pid
        self._sending = threading.Lock()
        self.arenas: dict[int, Arena] = {}

    def serve(self) -> None:
        try:
            while True:
                self._take(*self._frames.receive())
        except (EOFError, OSError):
            self.arenas = {}
        finally:
            self.end()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _take(self, message: Message, blobs: list[Any]) -> None:
        match message:
            case ArenaOpened():
                self.arenas[message.number] = Arena(blobs[0].take())
            case ArenaClosed():
                del self.arenas[message.number]
            case Watch():
                threading.Thread(target=self._tell_health, daemon=True).start()
            case Cancellation():
                self._engine.cancel(message.request_id)
            case Refusal():
                self._engine.refuse(message)
            case Scrape():
                self._send(Exposition(message.number, METRICS_TYPE), [METRICS])
            case _:
                self._invoke(message, blobs)

    def _invoke(self, invocation: Invocation, blobs: list[Any]) -> None:
        arena = self.arenas[invocation.arena]
        body = bytearray(arena.read(blobs[0]))

        def answer(answer: Answer, answer_body: bytes | bytearray) -> None:
            placed = arena.write([answer_body], end_of(blobs))
            if not answer.arena_is_free:
                self.arenas.pop(invocation.arena)
            with contextlib.suppress(OSError):  # nobody waits any more
                self._send(dataclasses.replace(answer, arena_used=end_of(placed)), placed)

        if invocation.content_type == "test/hold":
            self._engine.hold(Held(invocation, body, self._peer_pid, answer))
        else:
            answer(*self._engine.answer(invocation, body))

    def _tell_health(self) -> None:
        told = None
        with contextlib.suppress(OSError):
            while True:
                told = self._engine.wait_for_change(told, HEARTBEAT_S)
                if not self._engine.silent:
                    self._send(told)

    def _send(self, message: Message, blobs: Sequence[Blob] = ()) -> None:
        with self._sending:
            self._frames.send(message, blobs)
