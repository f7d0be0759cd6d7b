from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from bench.bench_error import BenchError
from bench.image_outcome import Picture, PictureError
from bench.image_sender import Sender, times_ms
from multigpu_inference.errors import DeadlineExceeded, Overloaded, ServingError, Unavailable, WorkerDied
from multigpu_inference.messages import Answer, Invocation

PICTURE = Picture("a.jpg", b"picture", "image/jpeg")
MEASURED = {"replica": "0", "queue_ms": "1.0", "preprocess_ms": "5.1", "stage_1_ms": "20.0", "stage_2_ms": "25.5"}


class Engine:
    """Answers as it was told to: 200, or an error, in its answer or instead of one."""

    def __init__(self, *answers: int | ServingError, instead: bool = False) -> None:
        self.answers = list(answers)
        self.instead = instead
        self.taken: list[Invocation] = []

    def invoke(self, invocation: Invocation, body: bytes) -> tuple[Answer, bytes]:
        self.taken.append(invocation)
        error = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(error, int):
            return Answer(invocation.request_id, error, "image/png", MEASURED), b"matte of " + body
        if self.instead:
            raise error
        return Answer(invocation.request_id, error.status, "application/json", {}), error.body(invocation.request_id)


def sender(engine: Engine, check: Callable[[], None] = lambda: None, **rest: Any) -> Sender:
    return Sender(lambda: engine, "image/png", 10.0, check, threading.Event(), pause_s=0.001, **rest)


def test_a_picture_becomes_its_answer_with_what_was_measured() -> None:
    engine = Engine(200)
    answered = sender(engine)(PICTURE)
    assert answered.body == b"matte of picture"
    assert (answered.transformation_ms, answered.inference_ms) == (5.1, 45.5)
    assert (engine.taken[0].content_type, engine.taken[0].accept) == ("image/jpeg", "image/png")


@pytest.mark.parametrize("instead", [False, True])
@pytest.mark.parametrize("refusal", [Unavailable(), Overloaded()])
def test_a_picture_that_is_refused_is_sent_again_until_a_worker_is_back(refusal: ServingError, instead: bool) -> None:
    engine = Engine(refusal, refusal, refusal, 200, instead=instead)
    assert sender(engine)(PICTURE).body == b"matte of picture"
    assert len({invocation.request_id for invocation in engine.taken}) == 4


def test_a_container_that_is_gone_ends_the_run() -> None:
    def check() -> None:
        raise BenchError("the container ended with exit code 6")

    with pytest.raises(BenchError, match="exit code 6"):
        sender(Engine(Unavailable(), instead=True), check)(PICTURE)


def test_the_run_is_given_up_where_nothing_is_answered_any_more() -> None:
    with pytest.raises(BenchError, match=r"nothing was answered for 0.05 s: no healthy replica"):
        sender(Engine(Unavailable()), patience_s=0.05)(PICTURE)


def test_a_picture_that_alone_is_refused_for_so_long_has_failed() -> None:
    class Picky(Engine):
        def invoke(self, invocation: Invocation, body: bytes) -> tuple[Answer, bytes]:
            self.answers = [Unavailable() if body == PICTURE.body else 200]
            return super().invoke(invocation, body)

    send = sender(Picky(200), patience_s=0.1)
    failed: list[str] = []

    def send_the_refused() -> None:
        with pytest.raises(PictureError) as error:
            send(PICTURE)
        failed.append(str(error.value))

    thread = threading.Thread(target=send_the_refused)
    thread.start()
    while thread.is_alive():
        send(Picture("b.jpg", b"another", "image/jpeg"))
    assert failed == ["503: no healthy replica can take the request now"]


def test_a_picture_that_fails_is_told_in_one_line_and_sent_once() -> None:
    engine = Engine(ServingError("input_fn: cannot identify image file"))
    with pytest.raises(PictureError, match=r"^500: input_fn: cannot identify image file$"):
        sender(engine)(PICTURE)
    assert len(engine.taken) == 1


@pytest.mark.parametrize("error", [DeadlineExceeded(), WorkerDied()])
def test_a_picture_whose_time_is_over_or_whose_worker_died_is_sent_again_once(error: ServingError) -> None:
    assert sender(Engine(error, 200))(PICTURE).body == b"matte of picture"
    engine = Engine(error)
    with pytest.raises(PictureError, match=f"{error.status}: {error}"):
        sender(engine)(PICTURE)
    assert len(engine.taken) == 2


def test_an_engine_that_does_not_answer_in_time_is_as_late() -> None:
    with pytest.raises(PictureError, match="504: the request took longer"):
        sender(Engine(DeadlineExceeded(), instead=True))(PICTURE)


def test_a_503_that_is_not_the_container_s_is_no_refusal() -> None:
    class Own(Engine):
        def invoke(self, invocation: Invocation, body: bytes) -> tuple[Answer, bytes]:
            text = json.dumps({"error": "own", "message": "not today"}).encode()
            return Answer(invocation.request_id, 503, "application/json"), text

    with pytest.raises(PictureError, match="503: not today"):
        sender(Own(200))(PICTURE)


def test_an_error_that_is_not_the_container_s_has_the_fixed_text() -> None:
    with pytest.raises(PictureError, match="404: the request failed"):
        sender(Engine(404))(PICTURE)


def test_times_are_of_the_functions_whatever_the_script_is() -> None:
    assert times_ms({"preprocess_ms": "3", "predict_ms": "7.5", "queue_ms": "9"}) == (3.0, 7.5)
    assert times_ms({"transform_ms": "3"}) == (None, None)
