from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from matting import fetch
from matting.fetch import fetch_body
from matting.options import Options
from matting.photo_file import PhotoFile
from matting.room import Reserve, Room, unbounded
from matting.s3_location import S3Location
from matting.save import Save
from matting.settings import Settings
from multigpu_inference import Bulk, Fetched, fetch_url
from multigpu_inference.errors import (
    BadRequest,
    DeadlineExceeded,
    NotAcceptable,
    PayloadTooLarge,
    ServingError,
    Unavailable,
    UnsupportedMediaType,
)
from multigpu_inference.url_fetch.policy import UrlPolicy
from multigpu_inference.url_fetch.watch import SecondsLeft, forever, refuse_if_late

URL = "http://example.com/a.jpg"
JSON, FORM = "application/json", "multipart/form-data"
PLACE = S3Location("results", "out")


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the world: an address is its own content. What was asked of it, in order."""
    asked: list[str] = []

    def fetch_url(
        url: str, *, accept: str, policy: UrlPolicy, seconds_left: SecondsLeft = forever, reserve: Reserve = unbounded
    ) -> bytes:
        refuse_if_late(seconds_left)
        asked.append(url)
        reserve(len(url))
        return url.encode()

    monkeypatch.setattr(fetch, "fetch_url", fetch_url)
    return asked


def one(
    body: str | bytearray,
    content_type: str = JSON,
    form: Mapping[str, str] | None = None,
    accept: str = "*/*",
    settings: Settings | None = None,
) -> Fetched:
    fetched = fetch_body(body, content_type, form or {}, accept, settings or Settings())
    assert isinstance(fetched, Fetched)
    assert isinstance(fetched.data, PhotoFile)
    return fetched


def record(**fields: Any) -> str:
    return json.dumps({"url": URL, **fields})


def test_downloads() -> None:
    fetched = one(record(max_side=9), accept="image/webp;cutout")
    assert fetched.data.data.tobytes() == URL.encode()
    assert fetched.data.options == Options(("cutout",), None, 9)
    assert fetched.store is None


def test_takes_base64() -> None:
    file = one(json.dumps({"image": base64.b64encode(b"picture").decode()})).data
    assert (file.is_base64, file.data.tobytes(), file.unpacked()) == (True, base64.b64encode(b"picture"), b"picture")


def test_reads_from_s3(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="in/a.jpg", Body=b"picture")
    settings = Settings(input_s3=(S3Location("others"), S3Location("photos", "in")))
    assert one('{"url": "S3://photos/in/a.jpg"}', settings=settings).data.data.tobytes() == b"picture"


@pytest.mark.parametrize("url", ["s3://photos/inner/a.jpg", "s3://photos/a.jpg", "s3://other/in/a.jpg"])
def test_reads_from_s3_only_where_the_operator_allows_it(url: str) -> None:
    with pytest.raises(BadRequest, match="a place in S3 that this endpoint does not read from"):
        one(json.dumps({"url": url}), settings=Settings(input_s3=(S3Location("photos", "in"),)))


def test_where_hosts_are_named_s3_is_read_only_where_that_is_named_too(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="in/a.jpg", Body=b"picture")
    hosts, body = UrlPolicy(hosts=("example.com",)), '{"url": "s3://photos/in/a.jpg"}'
    with pytest.raises(BadRequest, match="a place in S3 that this endpoint does not read from"):
        one(body, settings=Settings(urls=hosts))
    settings = Settings(urls=hosts, input_s3=(S3Location("photos"),))
    assert one(body, settings=settings).data.data.tobytes() == b"picture"


@pytest.mark.parametrize("url", ["http://example.com/", "s3://photos/in/a.jpg"])
def test_where_urls_are_off_nothing_is_fetched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "fetch_url", fetch_url)
    with pytest.raises(BadRequest, match="this endpoint fetches no URLs"):
        one(json.dumps({"url": url}), settings=Settings(urls=UrlPolicy(enabled=False)))


@pytest.mark.parametrize("url", ["s3://photos", "s3://photos/", "s3://Photos/a", "s3://photos/in/../a", "s3://photos/\ud800"])
def test_addresses_in_s3_that_are_none(url: str) -> None:
    with pytest.raises(BadRequest, match="'url' is no address in S3: "):
        one(json.dumps({"url": url}), settings=Settings(input_s3=(S3Location("photos", "in"),)))


@pytest.mark.parametrize(
    ("accept", "save"), [("*/*", Save("a.png", "image/png", PLACE)), ("image/webp", Save("a.webp", "image/webp", PLACE))]
)
def test_what_is_to_be_stored_goes_to_both(accept: str, save: Save) -> None:
    fetched = one(record(save_name="a"), accept=accept, settings=Settings(output_s3=PLACE))
    assert fetched.store == fetched.data.save == save


def test_without_a_place_nothing_is_stored() -> None:
    fetched = one(record(save_name="a"))
    assert (fetched.store, fetched.data.save) == (None, Save("a.png", "image/png"))


@pytest.mark.parametrize(
    ("fields", "accept", "error"),
    [
        ({"save_name": "../a"}, "*/*", BadRequest),
        ({"save_name": "a.jpg"}, "*/*", BadRequest),
        ({"save_name": "a", "output": ["alpha", "trimap"]}, "*/*", BadRequest),
        ({"output": ["alpha", "trimap"]}, "image/png", NotAcceptable),
        ({}, "text/html", NotAcceptable),
        ({"output": ["alpha", "trimap"]}, "video/mp4", NotAcceptable),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_fetched(
    site: list[str], fields: dict[str, Any], accept: str, error: type[ServingError]
) -> None:
    with pytest.raises(error):
        one(record(**fields), accept=accept)
    assert site == []


def test_what_is_stored_needs_no_accept() -> None:
    fetched = one(record(save_name="a"), accept="video/mp4", settings=Settings(output_s3=PLACE))
    assert fetched.store == Save("a.png", "image/png", PLACE)


@pytest.mark.parametrize("content_type", ["text/plain", "application/pdf", JSON, ""])
def test_a_forms_file_of_another_type_is_refused_as_it_is_without_fields(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"form's file must have .* image/jpeg"):
        one(bytearray(b"picture"), content_type, {"output": "trimap"})


def test_a_form_with_a_file() -> None:
    fetched = one(bytearray(b"picture"), "image/png", {"output": "trimap"})
    assert (fetched.data.data.tobytes(), fetched.data.options.outputs) == (b"picture", ("trimap",))


@pytest.mark.parametrize(("body", "content_type"), [("", FORM), (URL, "text/plain"), (URL, "")])
def test_a_form_with_a_url_alone(body: str, content_type: str) -> None:
    assert one(bytearray(body, "ascii"), content_type, {"url": URL}).data.data.tobytes() == URL.encode()


def test_a_form_with_json_alone() -> None:
    for body in (record(max_side=3), bytearray(record(max_side=3), "ascii")):
        assert one(body, JSON, {"request": record(max_side=3)}).data.options.max_side == 3


def test_a_list_is_fetched_in_order_with_its_errors() -> None:
    urls = [f"http://example.com/{i}" for i in range(20)]
    items: list[Any] = [{"url": url, "save_name": "a"} for url in urls]
    items[3], items[7] = {"url": "s3://photos"}, {"url": urls[7], "max_side": 0}
    bulk = fetch_body(json.dumps(items), JSON, {}, "image/webp;cutout", Settings(output_s3=PLACE))
    assert isinstance(bulk, Bulk)
    assert [i for i, item in enumerate(bulk.items) if isinstance(item, BadRequest)] == [3, 7]
    fetched = [item for item in bulk.items if isinstance(item, Fetched)]
    assert [item.data.data.tobytes().decode() for item in fetched] == [url for i, url in enumerate(urls) if i not in (3, 7)]
    # Accept says how a list is answered, which is in JSON; not what its items are.
    assert {item.data.options.outputs for item in fetched} == {("alpha",)}
    assert {item.store for item in fetched} == {Save("a.png", "image/png", PLACE)}


def fetch_list(items: list[Any], seconds_left: SecondsLeft = forever, accept: str = "*/*") -> list[Any]:
    bulk = fetch_body(json.dumps(items), JSON, {}, accept, Settings(), seconds_left)
    assert isinstance(bulk, Bulk)
    return list(bulk.items)


@pytest.mark.parametrize("accept", ["image/png", "video/mp4"])
def test_a_list_is_json_whatever_is_accepted(accept: str) -> None:
    (item,) = fetch_list([{"url": URL, "output": ["alpha", "trimap"]}], accept=accept)
    assert item.data.options.outputs == ("alpha", "trimap")


def test_a_lists_pictures_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_LIST_BYTES", 100)
    monkeypatch.setattr(fetch, "_FETCHES_AT_A_TIME", 1)
    items = fetch_list([{"url": "http://a/".ljust(length, "b")} for length in (60, 50, 40, 20)] + [{"image": "A" * 8}])
    # One that does not fit takes nothing from those that do.
    assert [type(item) for item in items] == [Fetched, PayloadTooLarge, Fetched, PayloadTooLarge, PayloadTooLarge]
    assert str(items[1]) == "the list's pictures are larger than 0.0001 MB together"


def test_all_lists_together_are_bounded_while_they_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_FETCHES_AT_A_TIME", 1)
    room = Room(50, lambda: Unavailable("too many"))
    monkeypatch.setattr(fetch, "_lists_room", room)
    for _ in range(3):  # what one has taken is there for the next
        items = fetch_list([{"url": URL}] * 3)
        assert [type(item) for item in items] == [Fetched, Fetched, Unavailable]
    room.take(50)
    assert [type(item) for item in fetch_list([{"url": URL}])] == [Unavailable]


def test_the_bound_of_all_lists_is_for_more_than_one_of_them() -> None:
    assert fetch.MAX_LISTS_BYTES >= 2 * fetch.MAX_LIST_BYTES


def test_what_of_a_list_is_not_there_in_time_is_so_in_its_place(monkeypatch: pytest.MonkeyPatch, site: list[str]) -> None:
    monkeypatch.setattr(fetch, "_FETCHES_AT_A_TIME", 1)
    packed = {"image": base64.b64encode(b"picture").decode()}
    items = fetch_list([{"url": URL}] * 4 + [packed], lambda: 1.0 if len(site) < 2 else 0.0)
    assert [type(item) for item in items] == [Fetched, Fetched, DeadlineExceeded, DeadlineExceeded, Fetched]
    assert len(site) == 2  # nothing more is begun


def test_a_list_leaves_time_for_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(fetch, "time", type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])}))
    monkeypatch.setattr(fetch, "_FETCHES_AT_A_TIME", 1)

    def seconds_left() -> float:
        return 1040.0 - clock[0]

    def fetch_url(url: str, *, seconds_left: SecondsLeft, **_: Any) -> bytes:
        refuse_if_late(seconds_left)
        clock[0] += 5.0
        return url.encode()

    monkeypatch.setattr(fetch, "fetch_url", fetch_url)
    items = fetch_list([{"url": URL}] * 8, seconds_left)  # of 40 s 20 are for fetching
    assert [type(item) for item in items] == [Fetched] * 4 + [DeadlineExceeded] * 4


def test_a_single_photo_has_all_the_time_of_its_request(site: list[str]) -> None:
    with pytest.raises(DeadlineExceeded):
        fetch_body(record(), JSON, {}, "*/*", Settings(), lambda: 0.0)
    assert site == []


def test_an_items_unexpected_error_is_logged_and_its_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fetch_url(url: str, **_: Any) -> bytes:
        if url.endswith("1"):
            raise KeyError("of ours")
        return url.encode()

    monkeypatch.setattr(fetch, "fetch_url", fetch_url)
    items = fetch_list([{"url": f"{URL}/{number}"} for number in range(3)])
    assert [type(item) for item in items] == [Fetched, ServingError, Fetched]
    assert (items[1].status, "of ours" in items[1].message) == (500, False)
    (line,) = capfd.readouterr().out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["error"], "of ours" in event["trace"]) == ("list_item_failed", "KeyError", True)


def test_a_photo_travels_without_a_copy() -> None:
    buffers: list[pickle.PickleBuffer] = []
    fetched = one(record(save_name="a"), settings=Settings(output_s3=PLACE))
    text = pickle.dumps(fetched, protocol=5, buffer_callback=buffers.append)
    assert [buffer.raw().tobytes() for buffer in buffers] == [URL.encode()]
    again = pickle.loads(text, buffers=buffers)
    assert np.array_equal(again.data.data, fetched.data.data)
    assert (again.data.options, again.store) == (fetched.data.options, fetched.store)
