from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import EndpointConnectionError

import matting.s3
from matting.s3 import get_object, put_object
from matting.s3_location import S3Location
from multigpu_inference.errors import BadRequest, DeadlineExceeded, PayloadTooLarge, ServingError, Unavailable

BODY = b"picture" * 100_000  # more than one chunk


def test_reads_an_object(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="a b/ü%20?#.jpg", Body=BODY)
    assert get_object(S3Location("photos", "a b/ü%20?#.jpg")) == BODY


def test_writes_an_object_with_its_type(s3: Any) -> None:
    put_object(S3Location("photos", "out/a.png"), b"picture", "image/png")
    found = s3.get_object(Bucket="photos", Key="out/a.png")
    assert (found["Body"].read(), found["ContentType"]) == (b"picture", "image/png")


@pytest.mark.parametrize("location", [S3Location("photos", "nothing"), S3Location("no-such-bucket", "a")])
@pytest.mark.usefixtures("s3")
def test_what_is_not_there_is_the_clients_mistake(location: S3Location) -> None:
    with pytest.raises(BadRequest, match="no object at the s3:// address"):
        get_object(location)


def test_size_is_bounded(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="a", Body=BODY)
    assert get_object(S3Location("photos", "a"), max_bytes=len(BODY)) == BODY
    with pytest.raises(PayloadTooLarge, match=r"larger than 0\.699999 MB"):
        get_object(S3Location("photos", "a"), max_bytes=len(BODY) - 1)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_the_operators_mistake() -> None:
    with pytest.raises(ServingError) as error:
        put_object(S3Location("no-such-bucket", "a"), b"", "image/png")
    assert (type(error.value), str(error.value)) == (ServingError, "the result cannot be stored: NoSuchBucket")


@pytest.mark.usefixtures("s3")
def test_threads_share_one_client() -> None:
    with ThreadPoolExecutor(4) as threads:
        clients = list(threads.map(lambda _: matting.s3._client(), range(8)))
    assert len({id(client) for client in clients}) == 1


@pytest.mark.parametrize(
    "bucket",
    [
        *("169.254.169.254", "127.1", "0x7f.1", "localhost", "metadata.google.internal", "evil.example.com", "a..b", "xn--a"),
        *("evil--use1-az4--x-s3", "evil--x-s3", "evil.com--x-s3", "evil-s3alias", "evil--ol-s3", "evil.mrap"),
        *("o0000000000000beta--op-s3", "test-accessp-o0b1d075431d83bebde8xz5w8ijx1qzlbp3i3ebeta0--op-s3"),
    ],
)
def test_whatever_a_bucket_is_called_nobody_but_aws_is_asked(aws: pytest.MonkeyPatch, bucket: str) -> None:
    """Names that look like hosts, and those whose endings AWS has a meaning for."""
    aws.delenv("AWS_ENDPOINT_URL_S3")
    hosts: list[str | None] = []

    def note(request: Any, **_: Any) -> None:
        hosts.append(urlsplit(request.url).hostname)
        raise EndpointConnectionError(endpoint_url="")

    aws.setattr(matting.s3, "_ATTEMPTS", 1)
    matting.s3._client().meta.events.register("before-send.s3", note)
    with pytest.raises((Unavailable, BadRequest)):
        get_object(S3Location(bucket, "key"))
    assert all(host is not None and host.endswith(".amazonaws.com") for host in hosts)


class Handler(BaseHTTPRequestHandler):
    """Answers as S3 does where something is wrong; the key's beginning says what."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.strip("/").partition("/")[2].partition("?")[0]
        if name == "lying":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"short")
            self.close_connection = True
        elif name == "begun":  # and no more
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"short")
            self.close_connection = True
            stopped.wait(20)
        elif name == "mute":
            self.close_connection = True
            stopped.wait(20)
        elif name == "late":
            stopped.wait(0.3)
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"whole")
        elif name == "dripping":
            self.send_response(200)
            self.send_header("Content-Length", "3000000")
            self.end_headers()
            self.close_connection = True
            try:
                while not stopped.wait(0.02):
                    self.wfile.write(b".")
            except OSError:
                return
        elif name == "silent":
            self.send_response(200)
            self.send_header("Content-Length", "101")
            self.end_headers()
            self.close_connection = True
            stopped.wait(20)
        elif name == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "3000000")
            self.end_headers()
            self.close_connection = True
            try:
                while not stopped.wait(0.02):
                    self.wfile.write(bytes(300_000))
            except OSError:  # the client hung up, as it should
                return
        else:
            status, _, code = name.partition("-")
            text = f"<Error><Code>{code}</Code><Message>arn:aws:iam::123456789012:role/x may not</Message></Error>".encode()
            self.send_response(int(status))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


stopped = threading.Event()


@pytest.fixture
def faults(aws: pytest.MonkeyPatch) -> Iterator[None]:
    stopped.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    aws.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    aws.setattr(matting.s3, "_ATTEMPTS", 1)  # a second one would only come after a pause
    yield
    stopped.set()
    server.shutdown()
    thread.join()
    server.server_close()


def kind_of(error: pytest.ExceptionInfo[ServingError]) -> tuple[type[ServingError], str]:
    assert "123456789012" not in str(error.value)
    return type(error.value), str(error.value).partition(": ")[2]


@pytest.mark.parametrize(
    ("key", "kind", "text"),
    [
        ("403-AccessDenied", BadRequest, "AccessDenied"),
        ("403-InvalidObjectState", BadRequest, "InvalidObjectState"),
        ("400-KeyTooLongError", BadRequest, "KeyTooLongError"),
        ("503-SlowDown", Unavailable, "SlowDown"),
        ("500-InternalError", Unavailable, "InternalError"),
        ("400-RequestTimeout", Unavailable, "RequestTimeout"),
        ("403-RequestTimeTooSkewed", Unavailable, "RequestTimeTooSkewed"),
        ("403-ExpiredToken", ServingError, "ExpiredToken"),
        ("403-InvalidAccessKeyId", ServingError, "InvalidAccessKeyId"),
        ("lying", Unavailable, "S3 does not answer in time"),
    ],
)
@pytest.mark.usefixtures("faults")
def test_reading_fails(key: str, kind: type[ServingError], text: str) -> None:
    with pytest.raises(ServingError) as error:
        get_object(S3Location("photos", key))
    assert kind_of(error) == (kind, text)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("403-AccessDenied", ServingError),
        ("404-NoSuchBucket", ServingError),
        ("403-InvalidAccessKeyId", ServingError),
        ("503-SlowDown", Unavailable),
        ("500-InternalError", Unavailable),
    ],
)
@pytest.mark.usefixtures("faults")
def test_writing_fails(key: str, kind: type[ServingError]) -> None:
    with pytest.raises(ServingError, match="the result cannot be stored") as error:
        put_object(S3Location("photos", key), b"picture", "image/png")
    assert kind_of(error) == (kind, key.partition("-")[2])


@pytest.mark.parametrize("key", ["slow", "dripping"])
@pytest.mark.usefixtures("faults")
def test_a_body_that_comes_slowly_is_given_up_and_may_be_asked_for_again(key: str) -> None:
    with pytest.raises(Unavailable, match=r"longer than 0\.05 s"):
        get_object(S3Location("photos", key), timeout_s=0.05)


@pytest.mark.parametrize("key", ["begun", "mute"])
@pytest.mark.usefixtures("faults")
def test_silence_is_given_up(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matting.s3, "_READ_TIMEOUT_S", 0.2)
    with pytest.raises(Unavailable, match="now: S3 does not answer in time"):
        get_object(S3Location("photos", key))


@pytest.mark.usefixtures("faults")
def test_the_time_for_the_bytes_begins_with_the_answer() -> None:
    assert get_object(S3Location("photos", "late"), timeout_s=0.2) == b"whole"


@pytest.mark.usefixtures("faults")
def test_ends_where_nobody_waits_any_more() -> None:
    left = iter([1.0, 1.0])
    with pytest.raises(DeadlineExceeded):
        get_object(S3Location("photos", "dripping"), seconds_left=lambda: next(left, 0.0))


def test_nothing_is_begun_where_nobody_waits(aws: pytest.MonkeyPatch) -> None:
    aws.setattr(matting.s3, "_client", lambda: pytest.fail("it was asked"))
    with pytest.raises(DeadlineExceeded):
        get_object(S3Location("photos", "a"), seconds_left=lambda: 0.0)


def test_bytes_are_reserved_before_they_come(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="a", Body=BODY)
    asked: list[int] = []
    get_object(S3Location("photos", "a"), reserve=asked.append)
    assert asked == [len(BODY)]


@pytest.mark.usefixtures("faults")
def test_what_s3_says_is_the_cause() -> None:
    """Where the log finds it."""
    with pytest.raises(ServingError) as error:
        put_object(S3Location("photos", "403-AccessDenied"), b"picture", "image/png")
    assert "123456789012" in str(error.value.__cause__)


@pytest.mark.usefixtures("faults")
def test_a_size_that_is_announced_is_enough() -> None:
    with pytest.raises(PayloadTooLarge, match=r"larger than 0\.0001 MB"):
        get_object(S3Location("photos", "silent"), max_bytes=100)


def test_nobody_there(aws: pytest.MonkeyPatch) -> None:
    aws.setattr(matting.s3, "_ATTEMPTS", 1)
    for call in (
        lambda: get_object(S3Location("photos", "a")),
        lambda: put_object(S3Location("photos", "a"), b"", "image/png"),
    ):
        with pytest.raises(Unavailable, match="now: S3 does not answer in time"):
            call()


def test_no_credentials(aws: pytest.MonkeyPatch) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    for call in (
        lambda: get_object(S3Location("photos", "a")),
        lambda: put_object(S3Location("photos", "a"), b"", "image/png"),
    ):
        with pytest.raises(ServingError, match=": the log has the reason under this request id") as error:
            call()
        assert error.value.status == 500
