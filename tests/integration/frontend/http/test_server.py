"""The process: how it starts, what it tells the supervisor, how it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import requests

from integration.frontend.front_end import gone
from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.messages import EngineReached, Heartbeat, Listening, Message, StartFailed
from support import wait_until

NewFrontEnd = Callable[..., HttpFrontEnd]


def test_it_tells_how_far_it_is_and_then_that_it_is_alive(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start_alone()
    said: list[Message] = []

    def heard(message: Message) -> bool:
        said.extend(server.said())
        return message in said

    wait_until(lambda: heard(Heartbeat()), 15)
    assert said[0] == Listening()
    assert EngineReached() not in said
    server.engine.start()
    wait_until(lambda: heard(EngineReached()), 5)
    said.clear()
    wait_until(lambda: heard(Heartbeat()), 5)


def test_it_listens_before_it_says_so(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start_alone()
    wait_until(lambda: Listening() in server.said(), 15)
    assert requests.get(f"{server.url}/ping", timeout=5).status_code == 503


def test_a_port_that_is_taken_stops_the_start_with_one_line(new_front_end: NewFrontEnd) -> None:
    server = new_front_end()
    with socket.create_server(("0.0.0.0", server.port)):
        server.start_alone()
        assert server.exit_code(within_s=15) == 3
    (failure,) = server.said()
    assert isinstance(failure, StartFailed)
    assert failure.message == f"port {server.port} cannot be used: Address already in use"


def test_sigterm_before_the_engine_is_there_ends_it_with_0(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start_alone()
    wait_until(lambda: Listening() in server.said(), 15)
    assert server.stop() == 0


def test_sigterm_lets_what_is_in_flight_finish(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    assert server.process is not None
    with ThreadPoolExecutor(1) as threads, RawConnection(server.port) as idle:
        idle.ask(request(body=b"x"))
        running = threads.submit(server.post, "test/hold", b"running")
        wait_until(lambda: server.engine.held, 5)
        server.process.terminate()
        assert idle.is_closed(5)
        server.engine.release()
        assert running.result().content == b"running"
    assert server.exit_code(within_s=10) == 0


def test_clients_that_take_nothing_do_not_keep_it_from_ending(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    with RawConnection(server.port) as stalled, RawConnection(server.port) as unfinished:
        stalled.send(request("test/size", b"%d" % (24 << 20)))
        stalled.head()
        unfinished.send(request(body=b"body")[:-1])
        assert server.stop() == 0


def test_it_ends_with_its_parent(new_front_end: NewFrontEnd) -> None:
    server = new_front_end()
    # A supervisor of its own, which passes its socket on and then waits to be killed.
    program = (
        "import os, socket, subprocess, sys\n"
        "ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "module = 'multigpu_inference.frontend.http.server'\n"
        "arguments = [str(theirs.fileno()), str(os.getpid()), 'front-end', sys.argv[1]]\n"
        "subprocess.run([sys.executable, '-m', module, *arguments], pass_fds=[theirs.fileno()])\n"
    )
    server.engine.start()
    with server.log.open("ab") as log:
        server.process = subprocess.Popen(
            [sys.executable, "-c", program, str(server.run_dir)], env=server.environment, stdout=log, stderr=log
        )
    server.ready()
    processes = server.descendants()
    assert len(processes) == 1
    server.process.kill()
    server.process.wait()
    wait_until(lambda: gone(processes), 5)


def test_it_is_one_process_that_is_small(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    with RawConnection(server.port) as connection:
        for _ in range(100):
            connection.ask(request(body=b"x"))
    (process,) = server.processes()
    assert process.memory_info().rss < 80 << 20
