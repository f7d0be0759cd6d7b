"""One request that means no good, and what is right for it."""

from __future__ import annotations

from dataclasses import dataclass

from multigpu_inference.config import MMS


@dataclass(frozen=True)
class HostileRequest:
    """Bytes for a connection of their own.

    Attributes:
        name: Of the request; no other has it.
        sent: What is sent.
        may_succeed: Whether it may be answered as any other: what is odd in it, HTTP lets a server ignore.
        succeeds_at_mms: Whether multi-model-server does so, where the HTTP front end refuses.
        own_of_mms: Whether multi-model-server's answer to it is one of its own making with a status of 500, which nothing
            outside of it can change.
        silent_at_mms: Whether it waits for more, and has no time limit for that.
        answers: How many answers there may be at most.
    """

    name: str
    sent: bytes
    may_succeed: bool = False
    succeeds_at_mms: bool = False
    own_of_mms: bool = False
    silent_at_mms: bool = False
    answers: int = 1

    def __str__(self) -> str:
        """Its name, in reports."""
        return self.name

    def succeeds(self, kind: str) -> bool:
        """Whether it may be answered as any other."""
        return self.may_succeed or (kind == MMS and self.succeeds_at_mms)

    def is_silent(self, kind: str) -> bool:
        """Whether no answer is to come, for a kind of front end."""
        return kind == MMS and self.silent_at_mms


def head(*lines: str | bytes, method: str = "POST", target: str = "/invocations") -> bytes:
    """A request's head; `Host` stands in it already."""
    given = [line.encode("latin-1") if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([f"{method} {target} HTTP/1.1".encode("latin-1"), b"Host: x", *given]) + b"\r\n\r\n"


def post(content_type: str, body: bytes, *lines: str | bytes) -> bytes:
    """A request in good order, whatever its body."""
    return head(f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *lines) + body
