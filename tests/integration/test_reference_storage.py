"""Photos by URL and from S3, results stored there: the reference application in its container, and a world that misbehaves."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
import numpy.typing as npt
import pytest
import requests
from PIL import Image

from integration.endpoint import Endpoint
from integration.whole_photo import whole_photo_endpoint
from multigpu_inference.frontend.http.form import parse_parts
from s3_site import CREDENTIALS, running_s3
from support import wait_until
from unit.code.matting.pictures import corners, file_of

PHOTO = file_of(corners())
PIXELS = np.asarray(corners())
ACCOUNT = "123456789012"
PREFIX = "out/put"
LARGE = 30_000_000  # bytes; more than is taken


class Site(ThreadingHTTPServer):
    """A server that can go down and come back, and knows what was asked of it."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 100

    def __init__(self, handler: type[BaseHTTPRequestHandler], behind: str = "") -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.behind = urlsplit(behind).netloc
        self.asked: list[str] = []
        self.down = False
        self.stopped = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def go_down(self) -> None:
        """From now on nobody is there, and connections that are open break off."""
        self.down = True
        self.shutdown()
        self.socket.close()

    def come_back(self) -> None:
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.server_bind()
        self.server_activate()
        self.down = False
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def end(self) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def begins(self) -> bool:
        """Note the request; whether it is to be answered."""
        self.close_connection = self.server.down
        self.server.asked += [] if self.server.down else [f"{self.command} {self.path}"]
        return not self.server.down

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        """A byte and a second, and so on."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while not self.server.stopped.wait(1):
            self.wfile.write(b"x")


class Web(Handler):
    """What a client's URLs point to; the path says what comes."""

    def do_GET(self) -> None:
        if not self.begins():
            return
        name = self.path.strip("/").partition("?")[0]
        redirects = {
            "to-s3": "s3://photos/in/a.png",
            "to-file": "file:///etc/passwd",
            "to-data": "data:image/png;base64,iVBORw0KGgo=",
            "to-ftp": "ftp://127.0.0.1/a.png",
            "to-nothing": "",
            "to-itself": "/to-itself",
            "to-photo": "photo.png",
            "to-broken": "http://[",
        }
        if name in redirects:
            self.say(302, b"look there", Location=redirects[name])
        elif name == "photo.png":
            self.say(200, PHOTO, Content_Type="text/html")  # what it says of itself does not count
        elif name == "drip":
            self.drip()
        elif name == "large":
            self.say(200, bytes(LARGE))
        elif name == "announced":
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Length", str(LARGE))
            self.end_headers()
        elif name == "text":
            self.say(200, b"no picture")
        elif name == "empty":
            self.say(200)
        elif name == "cut-off":
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(PHOTO[:50])
        else:
            self.say(int(name), b"a page")


class S3(Handler):
    """S3, but for keys that name a fault."""

    def do_GET(self) -> None:
        if self.begins():
            length = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(length)
            name = self.path.partition("?")[0].rpartition("/")[2]
            if (fault := re.match(r"(\d{3})-(\w+)", name)) is not None:
                why = f"arn:aws:iam::{ACCOUNT}:role/x is not allowed"
                self.say(int(fault[1]), f"<Error><Code>{fault[2]}</Code><Message>{why}</Message></Error>".encode())
            elif name.startswith("drip"):
                self.drip()
            elif name.startswith("hangs-up"):
                self.close_connection = True
            elif name.startswith("silent"):
                self.close_connection = True
                self.server.stopped.wait(60)
            else:
                self.forward(body)

    do_PUT = do_GET

    def forward(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.server.behind, timeout=10)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() in ("content-type", "etag")}
        self.say(answer.status, content, **kept)
        connection.close()


@dataclass
class World:
    """The container, and what is around it.

    Attributes:
        endpoint: Stores in `s3://results/out/put`, reads from `s3://photos/in` and `s3://faults`.
        web: Where URLs point to.
        s3: What the container takes for S3.
        client: A client of S3 that knows no faults.
    """

    endpoint: Endpoint
    web: Site
    s3: Site
    client: Any

    def url(self, name: str) -> str:
        return f"{self.web.url}/{name}"

    def stored(self) -> dict[str, str]:
        """All keys of all buckets that were not there at the beginning, and their content types."""
        found = self.client.list_objects_v2(Bucket="results").get("Contents", [])
        return {item["Key"]: self.client.head_object(Bucket="results", Key=item["Key"])["ContentType"] for item in found}

    def read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket="results", Key=key)["Body"].read()
        return content


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_s3() as url:
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        for bucket in ("photos", "results", "others"):
            client.create_bucket(Bucket=bucket)
        for key in ("in/a.png", "in/b/ü %20?#&+.png", "private/a.png"):
            client.put_object(Bucket="photos", Key=key, Body=PHOTO)
        client.put_object(Bucket="photos", Key="in/text", Body=b"no picture")
        client.put_object(Bucket="photos", Key="in/large", Body=bytes(LARGE))
        web, s3 = Site(Web), Site(S3, url)
        environment = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL_S3": s3.url,
            "MULTIGPU_OUTPUT_S3": f"s3://results/{PREFIX}/",
            "MULTIGPU_INPUT_S3": "s3://photos/in s3://faults",
            "MULTIGPU_URL_NETWORKS": "127.0.0.0/8",
            "MULTIGPU_URL_PORTS": f"{web.server_port},1",
        }
        server = whole_photo_endpoint(tmp_path_factory.mktemp("storage"), **environment)
        try:
            yield World(server.start().ready(), web, s3, client)
        finally:
            server.clean_up()
            web.end()
            s3.end()
            client.close()


@pytest.fixture(autouse=True)
def _nothing_stored_nothing_asked(world: World) -> Iterator[None]:
    world.web.asked.clear()
    world.s3.asked.clear()
    yield
    for key in world.stored():
        world.client.delete_object(Bucket="results", Key=key)
    assert world.endpoint.events("worker_died") == []


def opened(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def is_the_photo(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether it is a cut-out of all of it."""
    return bool(np.array_equal(pixels[..., :3], PIXELS)) and (pixels.shape[2] == 3 or bool((pixels[..., 3] == 255).all()))


def refusal(answer: requests.Response) -> tuple[int, str]:
    assert len(answer.text.strip().splitlines()) == 1
    assert ACCOUNT not in answer.text
    assert "arn:" not in answer.text
    assert "Traceback" not in answer.text
    return answer.status_code, answer.json()["message"]


# --- in ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://photos/in/a.png", "S3://photos/in/b/ü %20?#&+.png"])
def test_from_s3_in_every_type(world: World, url: str) -> None:
    request = {"url": url, "output": "cutout"}
    assert is_the_photo(opened(world.endpoint.invoke(request, Accept="image/png").content))
    webp = world.endpoint.invoke(request, Accept="image/webp")
    assert (webp.headers["Content-Type"], opened(webp.content).shape[:2]) == ("image/webp", (32, 48))
    assert is_the_photo(np.load(io.BytesIO(world.endpoint.invoke(request, Accept="application/x-npy").content)))
    record = world.endpoint.invoke(request, Accept="application/json").json()
    assert is_the_photo(opened(base64.b64decode(record.pop("cutout"))))
    assert record == {"width": 48, "height": 32, "content_type": "image/png"}


def test_by_url_and_over_redirects(world: World) -> None:
    for name in ("photo.png", "to-photo"):
        answer = world.endpoint.invoke({"url": world.url(name), "output": "cutout"})
        assert is_the_photo(opened(answer.content))


def test_several_outputs_and_options_in_json_and_in_a_form(world: World) -> None:
    fields = {"background": "#00f", "max_side": "24", "output": "cutout,alpha, trimap"}
    in_json = {"url": world.url("photo.png"), "background": "blue", "max_side": 24, "output": ["cutout", "alpha", "trimap"]}
    answers = [
        world.endpoint.invoke(in_json),
        _form(world, fields, PHOTO),
        _form(world, {**fields, "url": world.url("photo.png")}),
    ]
    for answer in answers:
        record = answer.json()
        assert list(record) == ["width", "height", "content_type", "cutout", "alpha", "trimap"]
        assert (record["width"], record["height"]) == (24, 16)
        shapes = [opened(base64.b64decode(record[name])).shape for name in ("cutout", "alpha", "trimap")]
        assert shapes == [(16, 24, 3), (16, 24), (16, 24)]
    assert answers[0].json() == answers[1].json() == answers[2].json()


def _form(world: World, fields: dict[str, str], photo: bytes | None = None, **headers: str) -> requests.Response:
    files: dict[str, Any] = {name: (None, text) for name, text in fields.items()}
    files |= {} if photo is None else {"photo": ("a.png", photo, "image/png")}
    named = {"Accept": "*/*", **headers}
    return requests.post(f"{world.endpoint.url}/invocations", files=files, headers=named, timeout=30)


@pytest.mark.parametrize(
    ("url", "status", "says"),
    [
        ("s3://photos/in/nothing.png", 400, "no object at the s3:// address"),
        ("s3://photos/private/a.png", 400, "does not read from"),
        ("s3://photos/in", 400, "there is no object|cannot be read"),
        ("s3://photos/inner/a.png", 400, "does not read from"),
        ("s3://photos/in/../private/a.png", 400, r"has \. or \.\. as a segment"),
        ("s3://others/in/a.png", 400, "does not read from"),
        ("s3://photos", 400, "it has no key"),
        ("s3:///in/a.png", 400, "its bucket's name"),
        ("s3://photos/in/text", 400, "is not a JPEG, PNG or WebP file"),
        ("s3://photos/in/large", 413, "larger than 25 MB"),
        ("s3://faults/403-AccessDenied", 400, "cannot be read: AccessDenied"),
        ("s3://faults/403-ExpiredToken", 500, "cannot be read: ExpiredToken"),
        ("s3://faults/400-RequestTimeout", 503, "cannot be read now: RequestTimeout"),
        ("to-s3", 400, "'url' must begin with http"),
        ("to-file", 400, "'url' must begin with http"),
        ("to-data", 400, "'url' must begin with http"),
        ("to-ftp", 400, "'url' must begin with http"),
        ("to-itself", 400, "redirects more than 3 times"),
        ("to-broken", 400, "must be an address such as"),
        ("to-nothing", 400, "answered with status 302"),
        ("404", 400, "answered with status 404"),
        ("500", 400, "answered with status 500"),
        ("text", 400, "is not a JPEG, PNG or WebP file"),
        ("empty", 400, "is not a JPEG, PNG or WebP file"),
        ("cut-off", 400, "could not be fetched"),
        ("large", 413, "larger than 25 MB"),
        ("announced", 413, "larger than 25 MB"),
        ("http://127.0.0.1:1/a.png", 400, "could not be fetched"),
        ("http://127.0.0.1:2/a.png", 400, "names a port that this endpoint does not fetch from"),
        ("http://10.0.0.1:1/a.png", 400, "could not be fetched"),
        ("http://no such host/a.png", 400, "must be an address such as"),
        ("file:///etc/passwd", 400, "'url' must begin with"),
    ],
)
def test_what_cannot_be_fetched_is_refused_in_one_line(world: World, url: str, status: int, says: str) -> None:
    found, message = refusal(world.endpoint.invoke({"url": url if ":" in url else world.url(url)}))
    assert (found, bool(re.search(says, message))) == (status, True), message
    assert [asked for asked in world.s3.asked if "/photos/in/a.png" in asked] == []


# --- out ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "accept", "key", "content_type"),
    [
        ("a", "*/*", "a.png", "image/png"),
        ("a", "application/json", "a.png", "image/png"),
        ("dir/a", "image/webp", "dir/a.webp", "image/webp"),
        ("a.npy", "image/png", "a.npy", "application/x-npy"),
        ("A.PNG", "application/x-npy", "A.PNG", "image/png"),
    ],
)
def test_is_stored_and_the_answer_says_where(world: World, name: str, accept: str, key: str, content_type: str) -> None:
    request = {"url": "s3://photos/in/a.png", "output": "cutout"}
    answer = world.endpoint.invoke({**request, "save_name": name}, Accept=accept)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    location = f"s3://results/{PREFIX}/{key}"
    sizes = {"width": 48, "height": 32, "content_type": content_type}
    assert answer.json() == {**sizes, "save_name": key, "saved": True, "location": location}
    assert world.stored() == {f"{PREFIX}/{key}": content_type}
    assert world.read(f"{PREFIX}/{key}") == world.endpoint.invoke(request, Accept=content_type).content


def test_a_form_is_stored_too_and_what_was_there_is_replaced(world: World) -> None:
    for output in ("alpha", "trimap", "cutout"):
        answer = _form(world, {"save_name": "x/y", "output": output}, PHOTO, Accept="image/png")
        assert answer.json()["saved"] is True
    assert is_the_photo(opened(world.read(f"{PREFIX}/x/y.png")))
    assert list(world.stored()) == [f"{PREFIX}/x/y.png"]


BAD_NAMES = [
    *(
        "",
        ".",
        "..",
        "/",
        "//",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/..",
        "a/../b",
        "./a",
        "a/./b",
        "../../results/a",
        "a/../../../b",
    ),
    *("..\\a", "a\\..\\b", "..%2fa", "%2e%2e/a", "a%00", "a\0b", "a\nb", "a\n", "a b", " a", "~/a", "a?b", "a#b", "a:b", "*"),
    *("s3://others/a", "\uff0e\uff0e/a", "..\uff0fa", "\u2025/a", "\u00e4", "\ud800", "a" * 201, "${HOME}", "a;b", "a'b"),
    *("a.jpg", "a.JPEG", "a.json", "a.svg", "a.npz"),
    *("...", ".hidden", "x/.../y", "x/.y", "..a", "out/put/a", ".png"),
]


def test_names_that_are_not_allowed_are_refused_before_anything_is_fetched(world: World) -> None:
    for name in [*BAD_NAMES, 5, ["a"], {"a": 1}, True]:
        status, message = refusal(world.endpoint.invoke({"url": world.url("photo.png"), "save_name": name}))
        assert (status, message.startswith("'save_name'")) == (400, True), (name, message)
    for name in ("../a", "a/../../b", "/a", "a.jpg"):
        assert refusal(_form(world, {"save_name": name, "url": world.url("photo.png")}))[0] == 400
    records = world.endpoint.invoke(
        json.dumps([{"url": world.url("photo.png"), "save_name": name} for name in BAD_NAMES])
    ).json()
    assert {record["status"] for record in records} == {400}
    assert world.web.asked == world.s3.asked == []
    assert world.stored() == {}


def test_odd_names_that_are_allowed_stay_within_the_prefix(world: World) -> None:
    names = [
        "a..b/c",
        "-",
        "_",
        "a.tar.gz",
        "-/_",
        "a..",
        "out.put/a",
        "a" * 200,
        "a.png.webp",
    ]
    items = [{"url": "s3://photos/in/a.png", "save_name": name} for name in names]
    records = world.endpoint.invoke(json.dumps(items)).json()
    assert [record["saved"] for record in records] == [True] * len(names)
    stored = world.stored()
    assert set(stored) == {record["location"].removeprefix("s3://results/") for record in records}
    assert len(stored) == len(names)
    assert all(key.startswith(f"{PREFIX}/") and not {".", ".."} & set(key.split("/")) for key in stored)


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("403-AccessDenied", 500, "the result cannot be stored: AccessDenied"),
        ("404-NoSuchBucket", 500, "the result cannot be stored: NoSuchBucket"),
        ("400-RequestTimeout", 503, "the result cannot be stored now: RequestTimeout"),
    ],
)
def test_what_s3_says_of_accounts_and_roles_stays_inside(world: World, name: str, status: int, says: str) -> None:
    request = {"url": "s3://photos/in/a.png", "save_name": name}
    assert refusal(world.endpoint.invoke(request)) == (status, says)
    assert ACCOUNT in world.endpoint.log.read_text()


def test_s3_goes_down_and_comes_back(world: World) -> None:
    store = {"url": world.url("photo.png"), "save_name": "a"}
    world.s3.go_down()
    try:
        for request in ({"url": "s3://photos/in/a.png"}, store):
            started = time.monotonic()
            status, message = refusal(world.endpoint.invoke(request))
            assert (status, "now: S3 does not answer in time" in message) == (503, True), message
            assert time.monotonic() - started < 15
        assert world.endpoint.invoke(PHOTO, "image/png").status_code == 200
    finally:
        world.s3.come_back()
    assert world.endpoint.invoke(store).json()["saved"] is True
    assert world.endpoint.invoke({"url": "s3://photos/in/a.png"}).status_code == 200


@pytest.mark.parametrize(
    "request_", [{"url": "s3://faults/hangs-up"}, {"url": "s3://photos/in/a.png", "save_name": "hangs-up.png"}]
)
def test_an_s3_that_hangs_up_is_503(world: World, request_: dict[str, Any]) -> None:
    status, message = refusal(world.endpoint.invoke(request_))
    assert (status, "now: S3 does not answer in time" in message) == (503, True), message


# --- many --------------------------------------------------------------------------------------------------------------------


def test_a_list_of_all_of_these_is_answered_in_order(world: World) -> None:
    photo = base64.b64encode(PHOTO).decode()
    items: list[tuple[Any, int, str]] = [
        ({"url": "s3://photos/in/a.png", "output": "cutout"}, 200, "cutout"),
        ({"url": world.url("to-s3")}, 400, "must begin with http"),
        ({"image": photo, "output": ["alpha", "trimap"]}, 200, "trimap"),
        ({"image": photo, "save_name": "../a"}, 400, "'save_name'"),
        ({"url": world.url("photo.png"), "save_name": "list/a.webp", "output": "cutout"}, 200, "location"),
        ({"image": photo, "save_name": "403-AccessDenied"}, 500, "cannot be stored: AccessDenied"),
        ("text", 400, "must be an object"),
        ({"url": "s3://faults/403-AccessDenied"}, 400, "cannot be read: AccessDenied"),
        ({"url": world.url("404")}, 400, "status 404"),
        ({"image": photo, "url": world.url("photo.png")}, 400, "either 'image'"),
        ({"image": photo, "output": ["alpha", "trimap"], "save_name": "a"}, 400, "stores one output"),
        ({"image": photo, "outptu": "alpha"}, 400, "did you mean 'output'"),
        ({"image": photo, "max_side": 0}, 400, "'max_side'"),
        ({"image": photo, "background": "blue", "max_side": 3}, 200, "cutout"),
        ({"image": "no base64!"}, 400, "not valid base64"),
        ({"url": "file:///etc/passwd"}, 400, "'url' must begin with"),
        (None, 400, "must be an object"),
    ]
    answer = world.endpoint.invoke(json.dumps([item for item, _, _ in items]), Accept="image/png")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert ACCOUNT not in answer.text
    for (item, status, says), record in zip(items, answer.json(), strict=True):
        assert record.get("status", 200) == status, (item, record)
        assert says in (record if status == 200 else record["message"]), (item, record)
    assert world.stored() == {f"{PREFIX}/list/a.webp": "image/webp"}


def test_many_parts_with_json_in_them(world: World) -> None:
    """`multipart/mixed`, which the HTTP front end alone has."""
    bodies: list[tuple[str, bytes]] = [
        ("application/json", json.dumps({"url": "s3://photos/in/a.png", "output": "cutout"}).encode()),
        ("application/json", json.dumps({"url": world.url("to-file")}).encode()),
        ("image/png", PHOTO),
        ("application/json", json.dumps({"url": world.url("photo.png"), "save_name": "part"}).encode()),
        ("application/json", json.dumps([{"url": "s3://photos/in/a.png"}, {"url": "s3://photos/in/none"}]).encode()),
        ("application/json", b"{"),
    ]
    body = b"".join(b"--x\r\nContent-Type: %s\r\n\r\n%s\r\n" % (kind.encode(), data) for kind, data in bodies) + b"--x--\r\n"
    answer = world.endpoint.invoke(body, "multipart/mixed; boundary=x", Accept="image/png")
    parts = parse_parts(answer.headers["Content-Type"], bytearray(answer.content))
    assert [part.headers["status"][:3] for part in parts] == ["200", "400", "200", "200", "200", "400"]
    assert is_the_photo(opened(bytes(parts[0].body)))
    assert "must begin with http" in json.loads(parts[1].body)["message"]
    assert opened(bytes(parts[2].body)).shape == (32, 48)
    assert json.loads(parts[3].body)["saved"] is True
    first, second = json.loads(parts[4].body)
    assert (first["width"], second["status"]) == (48, 400)
    assert list(world.stored()) == [f"{PREFIX}/part.png"]


# --- slow --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_byte_a_second_ends_at_its_limit_and_keeps_nobody_waiting(world: World) -> None:
    (plan,) = world.endpoint.events("plan")
    with ThreadPoolExecutor(plan["fetching"]) as threads:
        started = time.monotonic()
        slow = [threads.submit(world.endpoint.invoke, {"url": world.url("drip")}) for _ in range(plan["fetching"] - 1)]
        wait_until(lambda: len(world.web.asked) == plan["fetching"] - 1, 5)
        others: list[tuple[bytes | dict[str, Any], str]] = [
            (PHOTO, "image/png"),
            ({"url": world.url("photo.png")}, "application/json"),
            ({"url": "s3://photos/in/a.png", "save_name": "meanwhile"}, "application/json"),
        ]
        for body, content_type in others:
            began = time.monotonic()
            assert world.endpoint.invoke(body, content_type).status_code == 200
            assert time.monotonic() - began < 2
        assert {refusal(each.result()) for each in slow} == {(400, "what 'url' points to took longer than 10 s to fetch")}
        assert time.monotonic() - started < 13


def test_clients_that_leave_leave_nothing_behind(world: World) -> None:
    (plan,) = world.endpoint.events("plan")
    fetching, before = plan["fetching"], _gone(world)
    request = {"url": world.url("drip"), "save_name": "left"}

    def leave(_: int) -> None:
        with pytest.raises(requests.Timeout):
            requests.post(f"{world.endpoint.url}/invocations", json=request, timeout=0.4)

    for left in (fetching, 2 * fetching):  # as many as there are threads for fetching and storing
        with ThreadPoolExecutor(fetching) as leaving:
            list(leaving.map(leave, range(fetching)))
        wait_until(lambda left=left: _gone(world) == before + left, 10)  # type: ignore[misc]
    started = time.monotonic()
    assert world.endpoint.invoke({"url": world.url("photo.png"), "save_name": "stayed"}).json()["saved"] is True
    assert time.monotonic() - started < 4  # and not the 10 s that they might have taken
    assert list(world.stored()) == [f"{PREFIX}/stayed.png"]


def _gone(world: World) -> int:
    return [event["status"] for event in world.endpoint.events("request")].count(499)


@pytest.mark.slow
def test_an_object_that_comes_a_byte_at_a_time_is_given_up(world: World) -> None:
    started = time.monotonic()
    status, message = refusal(world.endpoint.invoke({"url": "s3://faults/drip"}))
    assert (status, "longer than 10 s" in message) == (503, True), message
    assert time.monotonic() - started < 15


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_", [{"url": "s3://faults/silent"}, {"url": "s3://photos/in/a.png", "save_name": "silent.png"}]
)
def test_a_silent_s3_is_given_up_within_15_s(world: World, request_: dict[str, Any]) -> None:
    started = time.monotonic()
    assert refusal(world.endpoint.invoke(request_))[0] == 503
    assert time.monotonic() - started < 15
