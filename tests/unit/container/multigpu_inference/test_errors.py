from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from multigpu_inference import errors
from multigpu_inference.errors import (
    MAX_RETRY_AFTER_S,
    BadRequest,
    ChosenStatus,
    ClientGone,
    DeadlineExceeded,
    Draining,
    Exhausted,
    FunctionFailed,
    KnownUnprocessable,
    NotAcceptable,
    OutOfMemory,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    ResponseTooLarge,
    ServingError,
    Unavailable,
    UnknownStructure,
    Unprocessable,
    UnsupportedMediaType,
    WorkerDied,
    WorkerKilled,
    WorkerLost,
    from_name,
    from_status,
    name_of,
)
from multigpu_inference.messages import Failure

STATUS = {
    BadRequest: 400,
    NotAcceptable: 406,
    RequestTimeout: 408,
    PayloadTooLarge: 413,
    UnsupportedMediaType: 415,
    Unprocessable: 422,
    KnownUnprocessable: 422,
    ClientGone: 499,
    FunctionFailed: 500,
    OutOfMemory: 500,
    ResponseTooLarge: 500,
    ServingError: 500,
    Unavailable: 503,
    Overloaded: 503,
    Exhausted: 503,
    Draining: 503,
    WorkerDied: 503,
    WorkerLost: 503,
    WorkerKilled: 503,
    UnknownStructure: 500,
    DeadlineExceeded: 504,
}


@pytest.mark.parametrize(("kind", "status"), STATUS.items())
def test_status(kind: type[ServingError], status: int) -> None:
    assert kind.status == status


def test_every_error_has_a_code_of_its_own() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ServingError)}
    assert defined == set(STATUS) | {ChosenStatus}
    # One takes its status's; the others stay in the engine.
    for_clients = defined - {ChosenStatus, WorkerLost, WorkerKilled, UnknownStructure}
    assert len({kind.code for kind in for_clients}) == len(for_clients)


def test_a_chosen_status_is_a_plain_number_which_may_be_sent() -> None:
    assert type(ChosenStatus("x", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE).status) is int


def test_without_a_text_it_has_its_own() -> None:
    assert Overloaded().message == "the queue is full"
    assert BadRequest("").message == "the request cannot be read"


def test_whatever_is_unavailable_says_when_to_come_again() -> None:
    kinds = [kind for kind in STATUS if issubclass(kind, Unavailable)]
    assert all(1 <= (kind().retry_after_s or 0) <= MAX_RETRY_AFTER_S for kind in kinds)
    inside = {WorkerDied, WorkerLost, WorkerKilled}  # of which no client is told
    assert {kind for kind, status in STATUS.items() if status == 503} - inside == set(kinds)


@pytest.mark.parametrize("character", ["x", '"', "\0", "é", "\N{GRINNING FACE}", "\ud800"])
@pytest.mark.parametrize("cls", [ServingError, Overloaded])
def test_a_body_is_short_and_ascii_whatever_its_text(cls: type[ServingError], character: str) -> None:
    body = cls(character * 1000).body("0" * 40)
    assert body.isascii()
    assert len(body) <= 500
    assert json.loads(body)["message"][:10] == character * 10


@pytest.mark.parametrize(("given", "kept"), [("one\ntwo", "one"), ("x" * 1000, "x" * 340), ("\n", "")])
def test_a_text_is_one_short_line(given: str, kept: str) -> None:
    assert BadRequest(given).message == kept


def test_an_answer_is_one_line_of_json() -> None:
    body = BadRequest('no "picture"').body("r-1")
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1
    assert json.loads(body) == {"error": "bad_request", "message": 'no "picture"', "request_id": "r-1"}


@pytest.mark.parametrize(
    ("error", "seconds"), [(Overloaded(), 1), (Overloaded("", 42), 42), (Unavailable(), 5), (Draining(), 5)]
)
def test_an_answer_says_when_to_come_again(error: ServingError, seconds: int) -> None:
    assert json.loads(error.body("r-1"))["retry_after_s"] == seconds


@pytest.mark.parametrize("error", [BadRequest(), FunctionFailed(), DeadlineExceeded()])
def test_an_answer_does_not_ask_for_a_repetition_that_is_of_no_use(error: ServingError) -> None:
    assert "retry_after_s" not in json.loads(error.body("r-1"))


def test_what_only_the_operator_may_see_is_not_in_the_answer() -> None:
    error = FunctionFailed()
    error.detail = "input_fn: KeyError: secret"
    assert b"secret" not in error.body("r-1")


@pytest.mark.parametrize("kind", STATUS)
def test_a_failure_gives_the_error_back(kind: type[ServingError]) -> None:
    error = Failure(1, kind.__name__, "text", "detail").error()
    assert type(error) is kind
    assert (error.message, error.detail) == ("text", "detail")


@pytest.mark.parametrize("name", ["KeyError", "Exception", "", "StartupError"])
def test_a_name_that_is_none_of_ours_is_an_internal_error(name: str) -> None:
    assert type(from_name(name, "text", 500)) is ServingError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (413, PayloadTooLarge),
        (415, UnsupportedMediaType),
        (422, Unprocessable),
        (500, FunctionFailed),
        (503, Unavailable),
        (504, DeadlineExceeded),
    ],
)
def test_a_status_is_the_error_of_that_status(status: int, kind: type[ServingError]) -> None:
    assert type(from_status(status, "text")) is kind


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (429, "too_many_requests"), (418, "im_a_teapot"), (501, "not_implemented")]
)
def test_a_status_without_a_class_of_its_own_is_kept_on_its_way_through_the_processes(status: int, code: str) -> None:
    error = from_status(status, "text")
    again = Failure(1, name_of(error), error.message, error.detail, error.status).error()
    assert (again.status, again.code, again.message) == (status, code, "text")


@pytest.mark.parametrize("status", [200, 399, 499, 600])
def test_a_status_that_is_none_of_an_error_is_a_failure_of_the_function(status: int) -> None:
    assert type(from_status(status, "text")) is FunctionFailed
