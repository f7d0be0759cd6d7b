"""An engine without models: it listens where the real one would, and does what a request's content type says."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from pathlib import Path

from integration.frontend.fake_connection import FakeConnection, Held
from multigpu_inference.messages import Answer, Health, Invocation, Refusal


class FakeEngine:
    """Answers every connection from a thread of its own.

    Content types: `test/echo` gives the body back; `test/describe` what arrived; `test/status` the status that the body names;
    `test/size` as many bytes as it names; `test/attributes` custom attributes of that length; `test/type` that content type;
    `test/hold` the body once `release` is called; `test/spoil` the body, in an arena that may not be used again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener: socket.socket | None = None
        self._connections: set[FakeConnection] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self.health = Health("healthy", 2, 2, 1000)
        self.silent = False  # whether it says nothing of its health any more, as one that is stopped does
        self.held: list[Held] = []
        self.cancelled: list[str] = []
        self.refusals: list[Refusal] = []
        self.answered = 0

    def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self.held = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self._path))
        self._path.chmod(0o777)
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Go, as a killed engine does: connections end, nobody listens."""
        if self._listener is None:
            return
        with contextlib.suppress(OSError):  # it is stopped already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                connection.end()

    def tell(self, health: Health) -> None:
        """Be like this from now on, and say so."""
        with self._changed:
            self.health = health
            self._changed.notify_all()

    def wait_for_change(self, told: Health | None, limit_s: float) -> Health:
        """How it is, once that is not what was told before, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.health is not told, limit_s)
            return self.health

    @property
    def holding(self) -> list[int]:
        """Process ids of those whose requests are held."""
        return [held.peer_pid for held in self.held]

    @property
    def arenas(self) -> int:
        """Arenas that are open."""
        with self._lock:
            return sum(len(connection.arenas) for connection in self._connections)

    def release(self, count: int | None = None) -> None:
        """Answer the requests that are held, or the oldest of them; hold others from now on."""
        with self._lock:
            released, self.held = self.held[:count], [] if count is None else self.held[count:]
        for held in released:
            held.answer(Answer(held.invocation.request_id, 200, "application/octet-stream", {"replica": "0"}), held.body)

    def hold(self, held: Held) -> None:
        with self._lock:
            self.held.append(held)

    def cancel(self, request_id: str) -> None:
        """Whoever asked has gone: a request that is held is answered at once, for its arena's sake."""
        with self._lock:
            self.cancelled.append(request_id)
            gone = [held for held in self.held if held.invocation.request_id == request_id]
            self.held = [held for held in self.held if held not in gone]
        for held in gone:
            held.answer(Answer(request_id, 499, "application/json"), b"gone")

    def refuse(self, refusal: Refusal) -> None:
        with self._lock:
            self.refusals.append(refusal)

    def answer(self, invocation: Invocation, body: bytearray) -> tuple[Answer, bytes | bytearray]:
        status, content_type, attributes = 200, "application/octet-stream", {"replica": "0", "queue_ms": "0.1"}
        answer_body: bytes | bytearray = body
        match invocation.content_type:
            case "test/status":
                status, content_type = int(body), "application/json"
                error = {"error": "asked_for", "message": "as asked", "request_id": invocation.request_id}
                answer_body = json.dumps(error).encode()
            case "test/size":
                answer_body = os.urandom(1) * int(body)
            case "test/attributes":
                attributes["longest"] = "x" * int(body)
            case "test/type":
                content_type = body.decode()
            case "test/echo" | "test/spoil":
                pass
            case _:
                content_type = "application/json"
                seen = {
                    "content_type": invocation.content_type,
                    "accept": invocation.accept,
                    "headers": dict(invocation.headers),
                    "seconds": invocation.deadline - invocation.arrived,
                    "body": body.decode("latin-1"),
                }
                answer_body = json.dumps(seen).encode()
        with self._lock:
            self.answered += 1
        is_free = invocation.content_type != "test/spoil"
        return Answer(invocation.request_id, status, content_type, attributes, arena_is_free=is_free), answer_body

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        connection = FakeConnection(self, sock, struct.unpack("3i", raw)[0])
        with self._lock:
            self._connections.add(connection)
        connection.serve()
        with self._lock:
            self._connections.discard(connection)
        sock.close()
