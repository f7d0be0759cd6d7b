"""`POST /invocations`: a request's way from its head to its answer, as an ASGI application.

head ──► refused now? ──► body, into an arena ──► engine ──► answer
                               ├ multipart/form-data: the one body in it
                               └ multipart/mixed: each part a request, answers streamed (`bulk`)
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from multigpu_inference import log
from multigpu_inference.config import Settings
from multigpu_inference.errors import BadRequest, ClientGone, Exhausted, Overloaded, ResponseTooLarge, ServingError
from multigpu_inference.fair_places import FairPlaces
from multigpu_inference.frontend.http.answer import HttpAnswer, Send
from multigpu_inference.frontend.http.arena_pool import PooledArena
from multigpu_inference.frontend.http.body import Receive, announced_length, receive_body
from multigpu_inference.frontend.http.bulk import answer_bulk, is_bulk
from multigpu_inference.frontend.http.connection import ON_CLIENT_GONE
from multigpu_inference.frontend.http.engine_link import EngineLink
from multigpu_inference.frontend.http.form import Part, parse_parts
from multigpu_inference.frontend.request import make_invocation, of_form, refuse_url_encoded
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import Invocation

INVOCATIONS_PATH = "/invocations"
# A part of a bulk request that finds the queue full comes again, where another request's client would.
_COME_AGAIN_S = 0.05
# Bulk requests that are answered at a time. Each holds its parts in memory for as long as its client takes over them.
_MOST_BULKS = 16


class _Received(NamedTuple):
    """A request that has come in.

    Attributes:
        content_type: Of the body.
        body: In a packet or in the arena; or its parts, where each is a request.
        arena: Where it is; of parts, given back already.
        fields: Of a form: its text fields.
    """

    content_type: str
    body: Blob | list[Part]
    arena: PooledArena
    fields: Mapping[str, str] = {}


class Invocations:
    """Answers invocations."""

    def __init__(self, engine: EngineLink, settings: Settings) -> None:
        """Keep what every request needs."""
        self._engine = engine
        self._request_timeout_s = settings.engine.request_timeout_s
        self._max_payload_bytes = settings.front_end.max_payload_bytes
        self._bulks = 0  # bulk requests that are being answered
        self._part_places: FairPlaces | None = None  # which their parts share; as many as the engine says

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong is an answer too."""
        arrived = time.monotonic()
        request_id = uuid.uuid4().hex
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            received = await self._receive(headers, scope, receive)
        except Exception as error:
            await _refused(self._engine, error, request_id)(scope, receive, send)
            return
        if isinstance(received.body, list):
            self._bulks += 1
            try:
                ask = partial(self._answer_part, request_id, headers)
                await answer_bulk(received.body, ask, self._engine.max_in_bulk, scope, send)
            finally:
                self._bulks -= 1
            return
        scope[ON_CLIENT_GONE] = partial(self._engine.cancel, request_id)
        invocation = make_invocation(
            request_id, received.content_type, headers, arrived, self._request_timeout_s, received.fields
        )
        answer = await self._answer(invocation, received.body, received.arena)
        await answer(scope, receive, send)

    async def _receive(self, headers: dict[str, str], scope: Any, receive: Receive) -> _Received:
        """Take a request's body."""
        content_type = headers.get("content-type", "")
        if sum(name == b"content-type" for name, _ in scope["headers"]) > 1:
            raise BadRequest("there is more than one Content-Type")
        refuse_url_encoded(content_type)
        length = announced_length(headers, self._max_payload_bytes)
        if (refusal := self._engine.refusal()) is not None:
            raise refusal
        if is_bulk(content_type):
            self._refuse_one_bulk_more()
        arena = self._engine.arena()
        try:
            body = await receive_body(scope, receive, length, self._max_payload_bytes, arena.memory)
            if not content_type.lower().startswith("multipart/"):
                return _Received(content_type, body, arena)
            parts = parse_parts(content_type, arena.memory.read(body))
            if is_bulk(content_type):
                self._refuse_one_bulk_more()  # others may have come in meanwhile
                self._engine.forget(arena)
                return _Received(content_type, parts, arena)
            form = of_form([part.in_form() for part in parts])
            return _Received(form.content_type, arena.memory.write([form.body], 0)[0], arena, form.fields)
        except BaseException:
            self._engine.forget(arena)
            raise

    def _refuse_one_bulk_more(self) -> None:
        if self._bulks >= _MOST_BULKS:
            raise Overloaded("too many bulk requests are being answered")

    async def _answer(self, invocation: Invocation, body: Blob, arena: PooledArena) -> HttpAnswer:
        """The engine's answer, or why there is none."""
        try:
            answer, answer_body = await self._engine.invoke(invocation, body, arena)
            if len(answer_body) > self._max_payload_bytes:
                raise ResponseTooLarge
            return HttpAnswer.of_engine(answer, answer_body)
        except ClientGone as error:  # the engine has it in its log
            return HttpAnswer.of_error(error, invocation.request_id)
        except ServingError as error:
            log.event("request", request_id=invocation.request_id, status=error.status, error=error.code)
            return HttpAnswer.of_error(error, invocation.request_id)

    async def _answer_part(self, request_id: str, headers: dict[str, str], part: Part, number: int) -> HttpAnswer:
        """Answer one part of a bulk request: in turn with those of others, which leave the engine room for single requests."""
        if self._part_places is None:
            self._part_places = FairPlaces(self._engine.max_in_bulk)
        async with self._part_places.place(request_id):
            return await self._answer_part_now(f"{request_id}-{number}", headers, part)

    async def _answer_part_now(self, own: str, headers: dict[str, str], part: Part) -> HttpAnswer:
        """Answer a part; where the engine is full, wait as long as a request may take."""
        accept = part.headers.get("accept", headers.get("accept", ""))
        arrived = time.monotonic()
        while (refusal := self._engine.refusal(received=True)) is not None:
            if not isinstance(refusal, Overloaded) or time.monotonic() > arrived + self._request_timeout_s:
                return _refused(self._engine, refusal, own)
            await asyncio.sleep(_COME_AGAIN_S)
        try:
            arena = self._engine.arena()
            try:
                body = arena.memory.write([part.body], 0)[0]
            except BaseException:
                self._engine.forget(arena)
                raise
        except Exception as error:
            return _refused(self._engine, error, own)
        headers = {**headers, "accept": accept}
        invocation = make_invocation(own, part.content_type, headers, time.monotonic(), self._request_timeout_s)
        return await self._answer(invocation, body, arena)


def refusal_at_once(engine: EngineLink, scope: Any) -> HttpAnswer | None:
    """The answer to an invocation that the engine has no room for: known with its head, whatever its body is."""
    if scope["path"] != INVOCATIONS_PATH or scope["method"] != "POST" or (refusal := engine.refusal()) is None:
        return None
    return _refused(engine, refusal, uuid.uuid4().hex)


def _refused(engine: EngineLink, error: Exception, request_id: str) -> HttpAnswer:
    """The answer to a request that does not come to the engine."""
    if not isinstance(error, ServingError):
        log.exception("front_end_error", error, request_id=request_id)
        error = Exhausted() if isinstance(error, OSError | MemoryError) else ServingError()
    log.event("request", request_id=request_id, status=error.status, error=error.code)
    engine.refused(error)
    return HttpAnswer.of_error(error, request_id)
