"""Requests whose heads, framing or targets are not what they should be; and the management API, sought in every way."""

from __future__ import annotations

from hostile.hostile_bodies import PHOTO
from hostile.hostile_request import HostileRequest, head, post

TYPE = "Content-Type: image/png"
CHUNKED = "Transfer-Encoding: chunked"
DELETE = head(method="DELETE", target="/models/model")
LIST = head(method="GET", target="/models")
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "CONNECT", "BREW")
TARGETS = (
    *("/models", "/models/model", "/models?url=http://127.0.0.1:9/x.mar", "/models/", "//models", "/./models", "/%6dodels"),
    *(
        "/x/../models",
        "/invocations/../models",
        "/ping/../models/model",
        "/models;a",
        "/models%3furl=x",
        "/models%00",
        "/MODELS",
    ),
    *("http://localhost/models", "http://x:8081/models/model", "https://x/models", "*", "/models/model/1.0", "/models#a"),
)
_LENGTH = f"Content-Length: {len(PHOTO)}"


def framing() -> list[HostileRequest]:
    """Lengths and encodings that two servers may read in two ways."""
    photo = PHOTO
    wrong = {
        "two lengths": ("Content-Length: 3", "Content-Length: 5"),
        "a negative length": ("Content-Length: -3",),
        "a length with a sign": ("Content-Length: +3",),
        "a hexadecimal length": ("Content-Length: 0x3",),
        "a list of lengths": ("Content-Length: 3, 5",),
        "a length of 20 digits": ("Content-Length: 99999999999999999999",),
        "a length with a space before the colon": ("Content-Length : 3",),
        "an empty length": ("Content-Length:",),
    }
    requests = [HostileRequest(name, head(TYPE, *lines) + b"abcde") for name, lines in wrong.items()]
    chunks = {
        "a chunk's size that is none": b"zz\r\nabc\r\n0\r\n\r\n",
        "a negative chunk": b"-3\r\nabc\r\n0\r\n\r\n",
        "a chunk of 2 to the 68": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "a chunk longer than it says": b"2\r\nabcd\r\n0\r\n\r\n",
    }
    requests += [HostileRequest(name, head(TYPE, CHUNKED) + body) for name, body in chunks.items()]
    size = f"{len(photo):x}".encode()
    return [
        *requests,
        HostileRequest("a length over the limit", head(TYPE, "Content-Length: 99999999") + b"abc"),
        HostileRequest(
            "a chunk's long extension",
            head(TYPE, CHUNKED) + size + b";" + b"a" * 9_000 + b"\r\n" + photo + b"\r\n0\r\n\r\n",
            may_succeed=True,
        ),
        HostileRequest(
            "a trailer", head(TYPE, CHUNKED) + size + b"\r\n" + photo + b"\r\n0\r\nContent-Type: a/b\r\n\r\n", may_succeed=True
        ),
        HostileRequest("both, the length first", head(TYPE, "Content-Length: 4", CHUNKED) + b"0\r\n\r\n" + DELETE, answers=3),
        HostileRequest("both, the length last", head(TYPE, CHUNKED, "Content-Length: 4") + b"0\r\n\r\n" + DELETE, answers=3),
        HostileRequest("equal lengths", head(TYPE, _LENGTH, _LENGTH) + photo + DELETE, answers=3, may_succeed=True),
        HostileRequest(
            "an unknown encoding",
            head(TYPE, "Transfer-Encoding: xchunked", _LENGTH) + photo + DELETE,
            answers=3,
            may_succeed=True,
        ),
        HostileRequest(
            "identity", head(TYPE, "Transfer-Encoding: identity", _LENGTH) + photo + DELETE, answers=3, may_succeed=True
        ),
        HostileRequest("chunked, behind a tab", head(TYPE, "Transfer-Encoding:\tchunked") + b"0\r\n\r\n" + DELETE, answers=2),
        HostileRequest("chunked twice", head(TYPE, CHUNKED, CHUNKED) + b"0\r\n\r\n" + DELETE, answers=3),
        HostileRequest("chunked, folded", head(TYPE, "Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n" + DELETE, answers=3),
    ]


def headers() -> list[HostileRequest]:
    """Headers that are too many, too long, doubled, folded or no headers."""
    return [
        HostileRequest("two content types", post("image/png", PHOTO, "Content-Type: application/json")),
        HostileRequest("a folded header", head(TYPE, _LENGTH, "X: a\r\n b") + PHOTO, may_succeed=True),
        HostileRequest("a null byte in a header", head(TYPE, _LENGTH, "X: a\0b") + PHOTO),
        HostileRequest("a header of 100 KB", head(TYPE, _LENGTH, "X: " + "a" * 100_000) + PHOTO),
        HostileRequest("20,000 headers", head(TYPE, _LENGTH, *[f"X{n}: a" for n in range(20_000)]) + PHOTO),
        HostileRequest("no colon", head(TYPE, _LENGTH, "no colon") + PHOTO),
        HostileRequest("a name that is none", head(TYPE, _LENGTH, "(a): b") + PHOTO, may_succeed=True),
        HostileRequest("a value beyond ASCII", head(TYPE, _LENGTH, b"X: \xff\xfe") + PHOTO, may_succeed=True),
        HostileRequest("line feeds alone", (head(TYPE, _LENGTH)).replace(b"\r\n", b"\n") + PHOTO, may_succeed=True),
        HostileRequest("an unknown expectation", head(TYPE, _LENGTH, "Expect: 200-maybe") + PHOTO, may_succeed=True),
        HostileRequest("HTTP/9.9", head(TYPE, _LENGTH).replace(b"HTTP/1.1", b"HTTP/9.9") + PHOTO, may_succeed=True),
        HostileRequest("no version", b"GET /models\r\n\r\n"),
        HostileRequest("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), silent_at_mms=True),
        HostileRequest("random bytes", bytes(range(128, 256)) * 10, silent_at_mms=True),
        HostileRequest("a target of 70 KB", head(method="GET", target="/" + "a" * 70_000)),
        HostileRequest("a target beyond ASCII", head(method="GET", target="/\xff\xfe")),
        HostileRequest("a target with a null byte", head(method="GET", target="/%00")),
    ]


def management() -> list[HostileRequest]:
    """Multi-model-server's management API."""
    requests = [
        HostileRequest(
            f"{method} {target}",
            head("Content-Length: 0", method=method, target=target),
            succeeds_at_mms=target.startswith("/ping/"),  # all that begins so is a ping there
            own_of_mms=target == "*",
        )
        for method in METHODS
        for target in TARGETS
    ]
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    socket = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
        "Sec-WebSocket-Version: 13",
    )
    good = post("image/png", PHOTO)
    return [
        *requests,
        HostileRequest("pipelined behind a good request", good + DELETE + LIST, answers=3, may_succeed=True),
        HostileRequest("pipelined before a good request", DELETE + LIST + good, answers=3, may_succeed=True),
        HostileRequest("a host of its own", LIST.replace(b"Host: x", b"Host: localhost:8081")),
        HostileRequest(
            "forwarded", head("X-Forwarded-For: 127.0.0.1", "X-Original-URL: /models", method="GET", target="/models")
        ),
        HostileRequest("an override", post("image/png", b"", "X-HTTP-Method-Override: DELETE", "X-Rewrite-URL: /models/model")),
        HostileRequest("HTTP/2 by upgrade", head(*offer, method="GET", target="/models")),
        HostileRequest("HTTP/2 at once", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", own_of_mms=True),
        HostileRequest("a web socket", head(*socket, method="GET", target="/models")),
    ]


def hostile_heads() -> list[HostileRequest]:
    """All of them."""
    return [*framing(), *headers(), *management()]
