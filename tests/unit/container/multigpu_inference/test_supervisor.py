from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from multigpu_inference import supervisor
from multigpu_inference.config import Settings
from multigpu_inference.engine import server
from multigpu_inference.messages import TOO_FEW_REPLICAS, EngineReady
from multigpu_inference.supervisor import ENGINE, ENGINE_DIED, Supervisor
from multigpu_inference.watched_child import WatchedChild


@pytest.mark.parametrize(("engines", "containers"), [(TOO_FEW_REPLICAS, TOO_FEW_REPLICAS), (1, ENGINE_DIED)])
def test_an_engine_that_dies_while_multi_model_server_starts_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engines: int, containers: int
) -> None:
    async def dying_engine(_: Supervisor) -> tuple[WatchedChild, EngineReady]:
        child = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", f"raise SystemExit({engines})")
        return WatchedChild(ENGINE, child), EngineReady(1, 1, 1)

    async def endless_start(_: Supervisor, ready: EngineReady) -> WatchedChild:
        await asyncio.Event().wait()
        raise AssertionError

    async def no_other_user(settings: Settings, run_dir: Path) -> None:
        """The children run as this one."""

    monkeypatch.setattr(Supervisor, "_start_engine", dying_engine)
    monkeypatch.setattr(Supervisor, "_start_model_server", endless_start)
    monkeypatch.setattr(supervisor, "unprivileged_user", no_other_user)
    monkeypatch.setattr(supervisor, "_refuse_taken_port", lambda port: None)
    settings = Settings.from_env({"SAGEMAKER_BASE_DIR": os.devnull, "MULTIGPU_FRONT_END": "mms"})

    async def main() -> int:
        async with asyncio.timeout(10):
            return await Supervisor(settings, tmp_path)._serve()

    assert asyncio.run(main()) == containers


def test_all_of_a_stop_takes_25_s_at_most_and_leaves_requests_their_time() -> None:
    assert server.DRAIN_LIMIT_S + server._FLUSH_LIMIT_S < supervisor._ENGINE_STOP_S
    assert supervisor._ENGINE_STOP_S + supervisor._FLUSH_S + supervisor._FRONT_END_STOP_S <= 25
