"""Requests in good HTTP whose bodies, or types, are not what the reference application takes."""

from __future__ import annotations

import base64
import json
from typing import Any

from hostile.hostile_request import HostileRequest, post
from unit.code.matting.pictures import corners, file_of

JSON = "application/json"
PHOTO = file_of(corners(), "PNG")
IMAGE = base64.b64encode(PHOTO).decode()
BAD_NAMES = [
    *("", ".", "..", "/", "//", "/a", "a/", "a//b", "../a", "a/..", "a/../b", "./a", "a/./b", "a/b/c", ".hidden", "a/.hidden"),
    *("..\\a", "a\\b", "..%2fa", "%2e%2e/a", "a\0b", "a\nb", "a\r\nX: y", "a b", " a", "~/a", "a?b", "a#b", "a:b", "*"),
    *(
        "s3://others/a",
        "\uff0e\uff0e/a",
        "\u2025/a",
        "\u00e4",
        "\ud800",
        "a" * 201,
        "${HOME}",
        "$(id)",
        "a;b",
        "a'b",
        "a\u202eb",
    ),
]


def json_bodies() -> list[HostileRequest]:
    """What is no JSON, no object of ours, or too much of it."""
    good = f'"image": "{IMAGE}"'
    texts: dict[str, str | bytes] = {
        "duplicate image": f'{{"image": "{IMAGE}", "image": "{IMAGE}"}}',
        "duplicate option": f'{{{good}, "max_side": 10, "max_side": 20}}',
        "duplicate in a list": f'[{{{good}, "output": "alpha", "output": "cutout"}}]',
        "NaN": f'{{{good}, "max_side": NaN}}',
        "Infinity": f'{{{good}, "max_side": Infinity}}',
        "minus Infinity": f'{{{good}, "max_side": -Infinity}}',
        "beyond a float": f'{{{good}, "max_side": 1e999}}',
        "a number of 4,000 digits": f'{{{good}, "max_side": {"9" * 4000}}}',
        "a number of a million digits": f'{{{good}, "max_side": {"9" * 1_000_000}}}',
        "arrays 9,999 deep": "[" * 9_999,
        "arrays 100,000 deep": "[" * 100_000,
        "objects 5,000 deep": '{"a":' * 5_000,
        "closed, 5,000 deep": "[" * 5_000 + "]" * 5_000,
        "a million parts": "[" + "1," * 1_000_000 + "1]",
        "a million fields": "{" + ",".join(f'"{n}":1' for n in range(100_000)) + "}",
        "empty": "",
        "white space": " \n\t " * 1000,
        "a number": "3",
        "a text": '"text"',
        "null": "null",
        "true": "true",
        "an empty list": "[]",
        "101 items": "[" + ",".join(["{}"] * 101) + "]",
        "cut off": f"{{{good}",
        "cut off in a text": f'{{"image": "{IMAGE[:50]}',
        "more behind it": f"{{{good}}} {{}}",
        "a comment": f"{{{good} /* a */}}",
        "single quotes": f"{{'image': '{IMAGE}'}}",
        "a trailing comma": f"{{{good},}}",
        "UTF-16": f"{{{good}}}".encode("utf-16"),
        "not UTF-8": b'{"image": "\xff\xfe"}',
        "a null byte": f'{{{good}, "output": "a\0"}}'.encode(),
        "binary": bytes(range(256)) * 4,
        "a very long field": json.dumps({"image": IMAGE, "\N{GRINNING FACE}" * 5_000: 1}),
        "a field of control characters": json.dumps({"image": IMAGE, "\r\nSet-Cookie: a": 1}),
        "python": "__import__('os').system('id')",
    }
    return [HostileRequest(f"JSON: {name}", post(JSON, _bytes(text))) for name, text in texts.items()]


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def json_fields() -> list[HostileRequest]:
    """Fields of wrong types, and values that are not allowed."""
    wrong: dict[str, list[Any]] = {
        "image": [3, True, [], {}, "", "A", "not base64!", "\ud800", "\u00e9", "=" * 100, IMAGE[:-10] + "!", "QQ==" * 50],
        "url": [
            *(3, True, [], {}, "", " ", "a", "ftp://a/b", "file:///etc/passwd", "data:image/png;base64,AAAA", "gopher://a"),
            *("http://", "http:///", "\ud800", "http://\ud800/", "http://a b/", "HTTP://", "http://" + "a" * 8_000),
        ],
        "output": [
            3,
            True,
            [],
            {},
            "",
            "mask",
            "alpha;id",
            ["alpha", "alpha"],
            ["alpha"] * 101,
            [["alpha"]],
            {"alpha": 1},
            "\0",
        ],
        "background": [
            3,
            True,
            [],
            {},
            "",
            "#12345",
            "rgb(1,2,3)",
            "url(http://a)",
            "x" * 10_000,
            "\ud800",
            "#\uff11\uff11\uff11",
        ],
        "max_side": [0, -1, 1.5, 65_536, True, [], {}, "", "1e3", "0x10", "\u0661", "9" * 100, 10**300],
        "save_name": [3, True, [], {}, *BAD_NAMES],
        "zzz": [1],
        "__class__": [1],
        "constructor": [{"prototype": 1}],
    }
    requests = []
    for field, values in wrong.items():
        for number, value in enumerate(values):
            record = {"image": IMAGE, field: value} if field != "url" else {field: value}
            requests.append(HostileRequest(f"field {field}, value {number}", post(JSON, json.dumps(record).encode())))
    both = {"image": IMAGE, "url": "http://a/b"}
    return [*requests, HostileRequest("image and url", post(JSON, json.dumps(both).encode()))]


def types() -> list[HostileRequest]:
    """Content types and accepted types that are not served, or lie."""
    xml = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
    pickled = b"cos\nsystem\n(S'id'\ntR."
    requests = [
        HostileRequest("text", post("text/plain", b"text")),
        HostileRequest("CSV", post("text/csv", b"a,b")),
        HostileRequest("XML with an entity", post("application/xml", xml)),
        HostileRequest("SVG with an entity", post("image/svg+xml", xml)),
        HostileRequest("a pickle", post("application/x-pickle", pickled)),
        HostileRequest("a pickle in npy", post("application/x-npy", b"\x93NUMPY\x01\x00" + pickled)),
        HostileRequest("no type", head_without_type(b"no picture")),
        HostileRequest("no picture", post("image/jpeg", b"no picture")),
        HostileRequest("an empty picture", post("image/png", b"")),
        HostileRequest("JSON said to be a picture", post("image/png", b'{"image": "AAAA"}')),
        HostileRequest("a picture said to be JSON", post(JSON, PHOTO)),
        HostileRequest("a type of 8,000 characters", post("image/" + "x" * 8_000, b"no picture")),
        HostileRequest("a type with no slash", post("image", b"no picture")),
        HostileRequest("a type of odd characters", post("image/\xff\xfe\x80", b"no picture"), may_succeed=True),
        HostileRequest("JSON in UTF-16", post(f"{JSON}; charset=utf-16", "{}".encode("utf-16"))),
        HostileRequest("a URL-encoded form", post("application/x-www-form-urlencoded", b"a=%zz&b=\xff"), own_of_mms=True),
        HostileRequest("gzip", post("image/png", b"\x1f\x8b\x08\x00no gzip", "Content-Encoding: gzip")),
    ]
    accepts = ["video/mp4", "image/png;q=0", "image/png;q=nan", ";;;,,,", "\xff\xfe", "image/png;" + "a=b;" * 2_000, "../../x"]
    return requests + [
        HostileRequest(f"Accept {number}", post("image/png", PHOTO, f"Accept: {accept}"), may_succeed=True)
        for number, accept in enumerate(accepts)
    ]


def head_without_type(body: bytes) -> bytes:
    """A request without a content type."""
    return f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def forms() -> list[HostileRequest]:
    """Multipart bodies that are none, or that are more than they seem."""

    def part(disposition: str, body: bytes = b"text", *lines: str) -> bytes:
        return (
            "\r\n".join([f"--b\r\nContent-Disposition: {disposition}", *lines]).encode("latin-1") + b"\r\n\r\n" + body + b"\r\n"
        )

    end = b"--b--\r\n"
    file = part('form-data; name="photo"; filename="a.png"', PHOTO, "Content-Type: image/png")
    bodies: dict[str, tuple[str, bytes]] = {
        "no boundary": ("", file + end),
        "another boundary": ("; boundary=c", file + end),
        "no end": ("; boundary=b", file),
        "cut off in a part": ("; boundary=b", file[:60]),
        "nothing": ("; boundary=b", b""),
        "only an end": ("; boundary=b", end),
        "two files": ("; boundary=b", file + file.replace(b'"photo"', b'"other"') + end),
        "no file and no url": ("; boundary=b", part('form-data; name="a"') + end),
        "a field twice": ("; boundary=b", part('form-data; name="output"', b"alpha") * 2 + file + end),
        "a field that is not UTF-8": ("; boundary=b", part('form-data; name="output"', b"\xff\xfe") + file + end),
        "an unknown field": ("; boundary=b", part('form-data; name="zzz"', b"1") + file + end),
        "a bad name": ("; boundary=b", part('form-data; name="save_name"', b"../a") + file + end),
        "a name with a line end": ("; boundary=b", part('form-data; name="a%0d%0aX: y"', b"1") + file + end),
        "a text of 20 KB": ("; boundary=b", part('form-data; name="output"', b"x" * 20_000) + file + end),
        "a url to a file": ("; boundary=b", part('form-data; name="url"', b"file:///etc/passwd") + end),
        "1,001 parts": ("; boundary=b", b"".join(part(f'form-data; name="{n}"') for n in range(1001)) + end),
        "mixed": ("; boundary=b", part("form-data", b"x", "Content-Type: multipart/mixed; boundary=c") + end),
        "no disposition": ("; boundary=b", b"--b\r\n\r\ntext\r\n" + end),
        "a header of 100 KB": ("; boundary=b", part('form-data; name="a"', b"1", "X: " + "y" * 100_000) + file + end),
    }
    own = {"no boundary", "another boundary", "no end", "cut off in a part", "no disposition", "mixed", "a header of 100 KB"}
    return [
        HostileRequest(
            f"form: {name}",
            post(f"multipart/form-data{parameter}", body),
            succeeds_at_mms=name == "a field twice",
            own_of_mms=name in own,
        )
        for name, (parameter, body) in bodies.items()
    ] + [
        HostileRequest("form: an empty boundary", post("multipart/form-data; boundary=", file + end), own_of_mms=True),
        HostileRequest("form: a boundary of 1,000", post(f"multipart/form-data; boundary={'b' * 1000}", end), own_of_mms=True),
        HostileRequest(
            "form: a file's name that leads elsewhere",
            post("multipart/form-data; boundary=b", file.replace(b"a.png", b"../../../etc/passwd\0.png") + end),
            may_succeed=True,
        ),
    ]


def hostile_bodies() -> list[HostileRequest]:
    """All of them."""
    return [*json_bodies(), *json_fields(), *types(), *forms()]
