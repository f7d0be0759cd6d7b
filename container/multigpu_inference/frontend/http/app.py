"""What the HTTP front end answers: SageMaker's paths, and `/metrics`. Everything else is 404 or 405, in one line of JSON."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from multigpu_inference.config import Settings
from multigpu_inference.errors import ServingError, from_status
from multigpu_inference.frontend.http.answer import HttpAnswer
from multigpu_inference.frontend.http.engine_link import EngineLink
from multigpu_inference.frontend.http.invocations import INVOCATIONS_PATH, Invocations

# What a client is told of a path or a method that there is not: nothing that it has sent itself.
_REFUSALS = {404: "there is nothing at this path", 405: "this path does not take this method"}
# Of concurrency times payload in a batch transform job, in MB.
_TRANSFORM_LIMIT_MB = 100


def make_app(engine: EngineLink, settings: Settings) -> Starlette:
    """The application.

    Args:
        engine: The connection to the engine.
        settings: The container's.
    """
    max_payload_mb = settings.front_end.max_payload_bytes >> 20

    async def ping(request: Request) -> Response:
        """Whether requests should be sent here. Nobody is asked: the engine's last word is at hand."""
        health = engine.health
        if health is None:
            state = "unavailable" if engine.reached.is_set() else "starting"
            return _json(503, {"status": state})
        content = {
            "status": health.state,
            "healthy_replicas": health.healthy_replicas,
            "num_replicas": health.num_replicas,
        }
        return _json(200 if health.state == "healthy" else 503, content)

    async def execution_parameters(request: Request) -> Response:
        """What a batch transform job takes where it is not told: as many requests at a time as its own limit allows."""
        health = engine.health
        held = health.max_in_flight if health is not None else 1
        concurrent = max(1, min(held, _TRANSFORM_LIMIT_MB // max_payload_mb))
        content = {
            "MaxConcurrentTransforms": concurrent,
            "BatchStrategy": "SINGLE_RECORD",
            "MaxPayloadInMB": min(max_payload_mb, _TRANSFORM_LIMIT_MB),
        }
        return _json(200, content)

    async def metrics(request: Request) -> Response:
        """The engine's metrics, in Prometheus' text format; for who accepts JSON the figures that people look at."""
        try:
            content_type, text = await engine.scrape(for_people="application/json" in request.headers.get("accept", ""))
            return _answer(HttpAnswer(200, content_type, text))
        except ServingError as error:
            return _answer(HttpAnswer.of_error(error, ""))

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refusal = from_status(error.status_code, _REFUSALS.get(error.status_code, error.detail))
        engine.refused(refusal)
        return _answer(HttpAnswer.of_error(refusal, ""), error.headers)

    app = Starlette(
        routes=[
            Route("/ping", ping, methods=["GET"]),
            Route(INVOCATIONS_PATH, Invocations(engine, settings), methods=["POST"]),
            Route("/execution-parameters", execution_parameters, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ],
        exception_handlers={HTTPException: refuse},
    )
    app.router.redirect_slashes = False  # where a redirect leads to is said by a header that the client sends
    return app


def _json(status: int, content: Any) -> Response:
    return _answer(HttpAnswer.of_json(status, content))


def _answer(answer: HttpAnswer, headers: Any = None) -> Response:
    response = Response(bytes(answer.body), answer.status, headers)
    response.raw_headers = [*answer.headers(), *(pair for pair in response.raw_headers if pair[0] == b"allow")]
    return response
