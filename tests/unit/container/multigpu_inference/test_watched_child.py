"""Children that speak, are asked, fall silent, end: with time made small."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import pytest

from multigpu_inference import watched_child
from multigpu_inference.front_end_ping import FrontEndPing
from multigpu_inference.ipc import FrameStream, socket_pair
from multigpu_inference.messages import EngineReached, Heartbeat
from multigpu_inference.watched_child import WatchedChild

SLEEPS = "import time; time.sleep(60)"
ENDS = "raise SystemExit(3)"


@pytest.fixture(autouse=True)
def _time_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TICK_S", 0.01), ("SILENT_TICKS", 10), ("PINGED_TICKS", 20), ("_ASK_EVERY_S", 0.01)):
        monkeypatch.setattr(watched_child, name, value)


class Answers(FrontEndPing):
    """A ping that answers a number of times."""

    def __init__(self, times: int) -> None:
        super().__init__(0)
        self.left = times

    async def answers(self) -> bool:
        self.left -= 1
        return self.left >= 0


def watch(script: str, use: Callable[[WatchedChild, FrameStream], Awaitable[None]], ping: FrontEndPing | None = None) -> None:
    async def run() -> None:
        child = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", script, start_new_session=True)
        ours, theirs = map(FrameStream, socket_pair())
        watched = WatchedChild("front-end", child, stream=None if ping else ours, ping=ping, reached=False)
        try:
            async with asyncio.timeout(20):
                await use(watched, theirs)
        finally:
            watched.ended.cancel()
            await asyncio.gather(watched.ended, return_exceptions=True)
            for stream in (ours, theirs):
                stream.close()
            if child.returncode is None:
                child.kill()
            await child.wait()

    asyncio.run(run())


def test_one_that_ends_is_told_with_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    async def use(child: WatchedChild, _: FrameStream) -> None:
        await child.ended
        assert child.tell() == 3

    watch(ENDS, use, Answers(10**9))
    assert json.loads(capfd.readouterr().out)["event"] == "process_ended"


def test_one_that_speaks_stays_and_says_when_it_can_be_reached() -> None:
    async def use(child: WatchedChild, speaks: FrameStream) -> None:
        for _ in range(60):
            speaks.send(Heartbeat())
            await asyncio.sleep(0.01)
        assert not child.ended.done()
        assert not child.reached.is_set()
        speaks.send(EngineReached())
        await child.reached.wait()

    watch(SLEEPS, use)


@pytest.mark.parametrize("ping", [None, Answers(3)], ids=["speaks", "asked"])
def test_one_that_falls_silent_is_given_up_and_ended(capfd: pytest.CaptureFixture[str], ping: FrontEndPing | None) -> None:
    async def use(child: WatchedChild, speaks: FrameStream) -> None:
        speaks.send(Heartbeat())
        await child.ended
        assert child.tell() is None

    watch(SLEEPS, use, ping)
    told = json.loads(capfd.readouterr().out)
    assert (told["event"], told["process"]) == ("process_hung", "front-end")
    assert told["because"].startswith("not heard of")


def test_one_that_answers_stays() -> None:
    async def use(child: WatchedChild, _: FrameStream) -> None:
        await asyncio.sleep(0.5)
        assert not child.ended.done()

    watch(SLEEPS, use, Answers(10**9))


def test_one_that_closes_its_socket_and_stays_is_given_up() -> None:
    async def use(child: WatchedChild, speaks: FrameStream) -> None:
        speaks.close()
        await child.ended
        assert child.tell() is None

    watch(SLEEPS, use)
