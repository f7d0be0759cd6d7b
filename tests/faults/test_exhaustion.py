"""Nothing left to write to: `/dev/shm`, the disk, descriptors, memory files, the log, name servers.

Each costs a one-line 503 at most, nobody waits for long, and all is well again without a restart once there is room.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from faults.surroundings import LogReader, after, fill, seen_by, tmpfs, with_mounts
from integration.endpoint import ROOT, Endpoint
from integration.frontend.http.raw_connection import RawConnection, request
from integration.kinds import http_only, mms_only, once_is_enough
from integration.whole_photo import whole_photo_endpoint
from multigpu_inference.config import HTTP
from support import wait_until
from unit.code.matting.pictures import corners, file_of

pytestmark = pytest.mark.faults

NewEndpoint = Callable[..., Endpoint]
MB = 1 << 20
BINARY = "application/octet-stream"
LIMIT_S = 15.0


def answered(endpoint: Endpoint, size: int) -> int:
    """The status of one request of so many bytes: its answer is right, or one line of JSON, and comes soon."""
    body = os.urandom(size)
    started = time.monotonic()
    answer = endpoint.invoke(body, BINARY)
    assert time.monotonic() - started < LIMIT_S
    if answer.status_code == 200:
        assert answer.content == body[::-1]
    else:
        is_refusal(answer)
    return answer.status_code


def is_refusal(answer: requests.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert len(answer.text.splitlines()) == 1
    assert len(answer.content) <= 500
    assert answer.json()["retry_after_s"] > 0


def all_answered(endpoint: Endpoint, size: int, count: int = 20) -> set[int]:
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        return set(threads.map(lambda _: answered(endpoint, size), range(count)))


def test_a_full_dev_shm_costs_nothing(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint().with_script("reverses")
    shm = Path("/dev/shm")
    with_mounts(endpoint, tmpfs(shm, "64k"), f"head -c 64k /dev/zero >{shm}/full").start().ready()
    with pytest.raises(OSError, match="No space left"):
        (seen_by(endpoint, shm) / "more").write_bytes(b"x")
    assert all_answered(endpoint, 2 * MB, 8) == {200}


def test_a_disk_that_fills_up_costs_nothing_but_multi_model_servers_large_forms(new_endpoint: NewEndpoint, kind: str) -> None:
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="pool").with_script("reverses")
    with_mounts(endpoint, tmpfs(endpoint.temporary, "32m")).start().ready()
    full = fill(seen_by(endpoint, endpoint.temporary))
    assert all_answered(endpoint, 2 * MB, 8) == {200}
    os.kill(endpoint.worker_pids("pool-")["pool-0"], signal.SIGKILL)  # a process is started on a full disk
    before = len(endpoint.events("worker_ready"))
    wait_until(lambda: len(endpoint.events("worker_ready")) > before, 10)
    assert all_answered(endpoint, 100_000) == {200}
    form = large_form(endpoint)
    if kind == HTTP:
        assert form.status_code == 200
    else:  # it keeps large parts of forms in files, and says so itself
        assert form.status_code == 500
        assert len(form.content) < 500
        assert str(endpoint.temporary) not in form.text
    full.unlink()
    assert large_form(endpoint).status_code == 200
    assert all_answered(endpoint, 2 * MB, 8) == {200}


def large_form(endpoint: Endpoint) -> requests.Response:
    files = {"photo": ("photo.bin", bytes(8 * MB), BINARY)}
    return requests.post(f"{endpoint.url}/invocations", files=files, timeout=LIMIT_S)


@once_is_enough
def test_a_disk_that_is_full_from_the_start_is_one_line(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint().with_script("reverses")
    everywhere = [f"mount --bind /tmp {other}" for other in ("/var/tmp", "/usr/tmp") if Path(other).is_dir()]
    kept = ["mkdir /mnt/root", f"mount --bind {ROOT} /mnt/root"]  # this checkout may lie in /tmp, too
    back = [f"mkdir -p {ROOT}", f"mount --bind /mnt/root {ROOT}"]
    full = [tmpfs(Path("/tmp"), "4k"), *back, "head -c 4k /dev/zero >/tmp/full", *everywhere, "cd /tmp"]
    endpoint.environment["SAGEMAKER_BASE_DIR"] = "/mnt/ml"  # so may the model
    with_mounts(endpoint, tmpfs(Path("/mnt"), "1m"), f"cp -r {endpoint.folder}/ml /mnt/ml", *kept, *full).start()
    assert endpoint.wait_exit(LIMIT_S) == 3
    (line,) = endpoint.log.read_text().splitlines()
    assert "there is no temporary folder to write to" in line


@http_only
def test_with_256_descriptors_it_refuses_in_time_who_comes_beyond_them(new_endpoint: NewEndpoint) -> None:
    endpoint = after(new_endpoint().with_script("reverses"), "ulimit -n 256").start().ready()
    unfinished = request(BINARY, bytes(MB))[:100_000]
    held = [RawConnection(endpoint.port) for _ in range(300)]
    try:
        for each in held:
            try:
                each.send(unfinished)
            except OSError:  # it was refused
                continue
        statuses = collections.Counter(answered_or_cut_off(endpoint) for _ in range(20))
        assert set(statuses) <= {200, 503, 0}
        assert endpoint.exit_code() is None
    finally:
        for each in held:
            each.close()
    wait_until(lambda: answered(endpoint, MB) == 200, LIMIT_S)
    assert all_answered(endpoint, MB) == {200}
    assert endpoint.events("worker_died") == []


def answered_or_cut_off(endpoint: Endpoint) -> int:
    """As `answered`, for a small body; 0 where the connection was refused while it was sent."""
    started = time.monotonic()
    try:
        return answered(endpoint, 1000)
    except requests.ConnectionError:
        assert time.monotonic() - started < LIMIT_S
        return 0


@mms_only
def test_with_256_descriptors_a_burst_is_answered_or_refused_in_time(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="120").with_script("reverses")
    after(endpoint, "ulimit -n 256").start().ready()
    assert endpoint.events("few_descriptors")

    def one(_: int) -> int:
        started = time.monotonic()
        status = endpoint.invoke(bytes(100_000), BINARY).status_code
        assert time.monotonic() - started < LIMIT_S
        return status

    with concurrent.futures.ThreadPoolExecutor(100) as threads:
        statuses = set(threads.map(one, range(200)))
    assert 200 in statuses
    assert statuses <= {200, 503}
    assert all_answered(endpoint, MB) == {200}


@once_is_enough
def test_without_memory_for_what_input_fn_returns_the_request_is_refused(new_endpoint: NewEndpoint) -> None:
    refused_without_memory(new_endpoint(), "pool_worker", 3, 66 * MB, 20 * MB)


def test_without_memory_for_a_body_the_request_is_refused(new_endpoint: NewEndpoint, kind: str) -> None:
    word, count = ("frontend.http.server", 1) if kind == HTTP else ("model_service_worker", 3)  # two, and their parent
    refused_without_memory(new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="2"), word, count, MB, 200_000)


def refused_without_memory(endpoint: Endpoint, word: str, count: int, most: int, large: int) -> None:
    """Large bodies are refused, and others are not, where the memory files of some processes cannot grow.

    Args:
        endpoint: Not started yet.
        word: In the processes' command lines.
        count: How many there are.
        most: Bytes of a file: a limit on files' sizes stands for the memory that is not there.
        large: Bytes of a body that needs more.
    """
    endpoint.environment["MULTIGPU_PREPROCESS"] = "pool"
    endpoint.with_script("reverses").start().ready()
    wait_until(lambda: len(endpoint.processes(word)) == count, 20)
    processes = endpoint.processes(word)
    for process in processes:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    assert all_answered(endpoint, large, 3) == {503}
    assert all_answered(endpoint, 1000) == {200}
    for process in processes:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert all_answered(endpoint, large, 3) == {200}
    assert {process.pid for process in endpoint.processes(word)} == {process.pid for process in processes}


def test_a_log_that_nobody_takes_costs_lines_and_no_requests(new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    endpoint = new_endpoint().with_script("reverses")
    reader = LogReader(endpoint, tmp_path / "pipe")
    endpoint.start()
    with reader.running():
        endpoint.ready()
        reader.stop()
        started = time.monotonic()
        assert all_answered(endpoint, 1000, 400) == {200}  # a line each: several times what a pipe holds
        assert time.monotonic() - started < 30
        reader.go_on()
        wait_until(lambda: answered(endpoint, 10) and endpoint.events("log_lines_lost"), 10)
        reader.stop()
        all_answered(endpoint, 10, 200)
        endpoint.terminate()
        assert endpoint.wait_exit(25) == 0
    assert sum(event["count"] for event in endpoint.events("log_lines_lost")) > 100


@once_is_enough
def test_a_log_that_is_closed_costs_nothing(new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    endpoint = new_endpoint().with_script("reverses")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    after(endpoint, f"exec >{pipe} 2>&1").start()
    with pipe.open():
        pass  # it has been opened at both ends, and is closed at this one
    wait_until(lambda: reachable(endpoint), 30)
    assert all_answered(endpoint, 100_000) == {200}
    endpoint.terminate()
    assert endpoint.wait_exit(25) == 0


def reachable(endpoint: Endpoint) -> bool:
    try:
        return requests.get(f"{endpoint.url}/ping", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_a_silent_name_server_holds_up_nobody_for_long(tmp_path: Path) -> None:
    endpoint = whole_photo_endpoint(tmp_path / "endpoint")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.99\n")
    with_mounts(endpoint, f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf")
    photo = file_of(corners(), "JPEG")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        name_server.bind(("127.0.0.99", 53))
        try:
            endpoint.start().ready()
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                started = time.monotonic()
                asking = [threads.submit(endpoint.invoke, {"url": f"http://photos{n}.example/a.jpg"}) for n in range(4)]
                wait_until(lambda: name_server.recv(512), 10)
                for _ in range(20):
                    assert endpoint.invoke(photo, "image/jpeg").status_code == 200
                answers = [each.result() for each in asking]
                assert time.monotonic() - started < LIMIT_S
            for answer in answers:
                assert 400 <= answer.status_code < 600
                assert len(answer.text.splitlines()) == 1
                assert "127.0.0" not in answer.text
                json.loads(answer.text)
        finally:
            endpoint.clean_up()
