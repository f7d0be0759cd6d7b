"""The check itself: the container's own engine serves the folder, a few requests are sent, and its log is read.

    probe ──► engine: every replica loads ──► the request, once to find out where its functions run, then once more a replica

What is found is what the container would do, because the container's engine did it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from multigpu_inference.check.checked import Answered, Checked, FunctionPlace
from multigpu_inference.config import Settings
from multigpu_inference.errors import ServingError
from multigpu_inference.frontend.client import EngineClient
from multigpu_inference.messages import Answer
from multigpu_inference.planner.engine_run import started_engine
from multigpu_inference.planner.probes import probe
from multigpu_inference.planner.sample import Sample, find_sample
from multigpu_inference.requirements import install_requirements
from multigpu_inference.run_folder import run_folder

_ROUNDS = 2  # of requests to every replica, beside the first one
_GRACE_S = 1.0


async def check(
    settings: Settings, environ: Mapping[str, str], body: Path | None, content_type: str | None, accept: str | None, log: Path
) -> Checked:
    """Load a model folder and try a request on it.

    Args:
        settings: The folder, and what else the container would be told.
        environ: The variables that say so.
        body: A file with a request's body; None: the script's own sample, where it has one.
        content_type: Of that body.
        accept: What is asked for.
        log: Where this process and those that it starts print.

    Raises:
        StartupError: where the container would not start.
    """
    with run_folder() as folder:
        await install_requirements(settings.model.code_dir / "requirements.txt", folder, settings.engine.startup_timeout_s)
        environ = {**environ, **{name: value for name, value in os.environ.items() if name == "PYTHONPATH"}}
        info, gpus = await probe(settings, environ, need_import=False)
        sample = None if body is None and info.sample is None else find_sample(info, body, content_type, accept)
        async with started_engine(environ, settings) as (_, path):
            plan = next(iter(events(log, "plan")))
            answered = None
            if sample is not None:
                count = 1 + _ROUNDS * plan["num_replicas"]
                answered = await asyncio.to_thread(_try, str(path), sample, settings.engine.request_timeout_s, count)
    places = {each["function"]: FunctionPlace(each["runs_in"], each.get("because")) for each in events(log, "function_placed")}
    loads = [each["load_ms"] for each in events(log, "worker_ready") if each["worker"].startswith("replica-")]
    branches = {name: count for each in events(log, "branches") for name, count in each["at_a_time"].items()}
    return Checked(
        script=settings.model.program,
        info=info,
        placement=tuple(tuple(devices) for devices in plan["placement"]),
        gpus=gpus,
        pool_workers=plan["pool_workers"],
        load_ms=tuple(loads),
        places=places,
        sample=sample,
        answered=answered,
        failures=tuple(events(log, "function_failed")),
        streams=settings.engine.streams_per_stage,
        branches=branches,
    )


def events(log: Path, name: str) -> Iterable[Mapping[str, Any]]:
    """Lines of a log about one kind of event."""
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith('{"time"') and line.endswith("}"):
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                yield event


def _try(path: str, sample: Sample, timeout_s: float, count: int) -> Answered:
    """Send a request, several times, one after another."""
    client = EngineClient(path, _GRACE_S)
    answers: list[tuple[Answer, bytes]] = []
    try:
        for number in range(count):
            answer, body = client.invoke(sample.invocation(f"check-{number}", timeout_s), sample.body)
            answers.append((answer, bytes(body)))
            if answer.status != 200:
                break
    except ServingError as error:
        return Answered(error.status, error.message, "", 0, {})
    finally:
        client.close()
    last, body = answers[-1]
    reason = None if last.status == 200 else str(json.loads(body).get("message", ""))
    later = [answer.attributes for answer, _ in answers[1:] or answers]
    hops = dict.fromkeys(name for attributes in later for name in attributes if name.endswith("_ms"))
    milliseconds = {
        name: statistics.median(float(attributes[name]) for attributes in later if name in attributes) for name in hops
    }
    return Answered(last.status, reason, last.content_type, len(body), milliseconds)
