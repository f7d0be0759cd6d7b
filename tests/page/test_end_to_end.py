"""`make serve` as it is: its real process, the real endpoint with the demo's weights, the page in a browser, and Ctrl-C."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, expect

from demo_model import ROOT
from support import free_port, wait_until

pytestmark = pytest.mark.page

START_LIMIT_S = 50.0
STOP_LIMIT_S = 30.0


class Serve:
    """`python demo/run.py --stay` in a copy of the tree, which leaves the build folder of this one alone.

    Attributes:
        port: Of the endpoint.
        page_port: Of the page.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        for name in ("demo", "code", "container"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.port, self.page_port = free_port(), free_port()
        settings = {
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "MULTIGPU_DEMO_PAGE_PORT": str(self.page_port),
            "MULTIGPU_DEVICES": "cpu",
            "PYTHONPATH": str(folder / "container"),
        }
        inherited = {name: value for name, value in os.environ.items() if name != "MULTIGPU_FRONT_END"}
        self._output = folder / "output"
        self._log = folder / "build" / "demo" / "endpoint.log"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(folder / "demo" / "run.py"), "--stay"],
                env={**inherited, **settings, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def told(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.told() + (self._log.read_text() if self._log.exists() else "")
        return "Ctrl-C stops it" in self.told() and "curl" in self.told()

    def clean_up(self) -> None:
        """End everything by force."""
        for process in self.descendants() if self.process.poll() is None else []:
            process.kill()
        self.process.kill()
        self.process.wait()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    # What a shell starts in the background has SIGINT ignored, and passes that on to what it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    serve = Serve(tmp_path)
    yield serve
    serve.clean_up()


@pytest.mark.timeout(120)
def test_a_photo_goes_through_the_real_endpoint_and_ctrl_c_leaves_nothing(serve: Serve, context: BrowserContext) -> None:
    wait_until(serve.is_ready, START_LIMIT_S)
    assert f"http://127.0.0.1:{serve.port}\n" in serve.told()
    assert f"http://127.0.0.1:{serve.page_port}/\n" in serve.told()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"http://127.0.0.1:{serve.page_port}/")
    expect(page.locator("#live-status")).to_have_text("The endpoint is healthy; 2 replicas.")

    replicas = set()
    for number in (1, 2):
        page.get_by_role("button", name="Chick").click()
        expect(page.locator("#last-rows tr")).to_have_count(number, timeout=30_000)
        expect(page.locator("#error")).to_be_hidden()
        replicas.add(page.locator("#last-rows .replica").first.inner_text())
    assert replicas == {"replica 0", "replica 1"}
    expect(page.locator("#status")).to_contain_text("511 \N{MULTIPLICATION SIGN} 383 pixels")
    hops = page.locator("#way-bar > span").evaluate_all("(all) => all.map((one) => one.dataset.hop)")
    assert [hop for hop in hops if hop in ("queue", "preprocess", "stage_1", "stage_2", "postprocess")] == [
        *("queue", "preprocess", "stage_1", "stage_2", "postprocess"),
    ]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the cut-out").click()
    with Image.open(io.BytesIO(Path(download.value.path()).read_bytes())) as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", (511, 383))
        alpha = cutout.getchannel("A")
        assert alpha.getpixel((0, 0)) == 0
        assert alpha.getextrema() == (0, 255)
    wait_until(lambda: page.locator("#live-replicas td:nth-child(3)").all_inner_texts() == ["1", "1"], 10)
    assert said == []

    page.get_by_label("Or the address of a photo").fill("http://127.0.0.1:1/photo.jpg")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text("Status 400: ")

    processes = serve.descendants()
    assert processes
    serve.process.send_signal(signal.SIGINT)
    assert serve.process.wait(STOP_LIMIT_S) == 0, serve.told()
    assert serve.told().endswith("\nstopped\n")
    assert [process for process in processes if process.is_running()] == []
    for port in (serve.port, serve.page_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
