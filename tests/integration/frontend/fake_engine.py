"""An engine without models: it listens where the real one would, and does what a request's content type says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import struct
import threading
from pathlib import Path

from multigpu_inference.arena import Arena, end_of
from multigpu_inference.ipc import FrameSocket
from multigpu_inference.messages import Answer, ArenaOpened, Invocation


class FakeEngine:
    """Answers every connection from a thread of its own.

    Content types: `test/echo` gives the body back; `test/describe` what arrived; `test/status` the status that the body names;
    `test/size` as many bytes as it names; `test/attributes` custom attributes of that length; `test/type` that content type;
    `test/hold` an answer once `release` is called.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._released = threading.Event()
        self._lock = threading.Lock()
        self.holding: list[int] = []  # process ids of the front-end workers whose requests are held
        self.answered = 0

    def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._released.clear()
        self.holding = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self._path))
        self._path.chmod(0o777)
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Go, as a killed engine does: connections end, nobody listens."""
        self._released.set()
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Answer the requests that are held, and hold others from now on."""
        with self._lock:
            released, self._released = self._released, threading.Event()
            self.holding = []
        released.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        worker_pid = struct.unpack("3i", raw)[0]
        with self._lock:
            self._connections.add(connection)
        frames = FrameSocket(connection)
        with contextlib.suppress(EOFError, OSError):
            arenas: dict[int, Arena] = {}
            while True:
                message, blobs = frames.receive()
                if isinstance(message, ArenaOpened):
                    arenas[message.number] = Arena(blobs[0].take())
                    continue
                arena = arenas[message.arena]
                answer, body = self._answer(message, bytearray(arena.read(blobs[0])), worker_pid)
                self.answered += 1
                placed = arena.write([body], end_of(blobs))
                frames.send(dataclasses.replace(answer, arena_used=end_of(placed)), placed)
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    def _answer(self, invocation: Invocation, body: bytearray, worker_pid: int) -> tuple[Answer, bytes | bytearray]:
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
            case "test/hold":
                with self._lock:
                    released = self._released
                    self.holding.append(worker_pid)
                released.wait(30)
            case "test/echo":
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
        return Answer(invocation.request_id, status, content_type, attributes), answer_body
