"""URLs of strangers, through the real container, in a network where every address answers and every call is noted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hostile_urls import MAY_BE_FETCHED

pytestmark = pytest.mark.hostile

PROGRAM = Path(__file__).with_name("closed_network.py")


@pytest.fixture(scope="module")
def see(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What a script's container answered in a network of its own, and who was called."""
    namespaces = _namespaces()
    if not namespaces:
        no_network = "this machine gives nobody a network of his own (unshare --net --mount, or with --user)"
        pytest.fail(no_network) if os.environ.get("CI") else pytest.skip(no_network)

    @cache
    def see(script: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(script)
        ran = subprocess.run(
            [*namespaces, sys.executable, str(PROGRAM), str(folder), script], capture_output=True, text=True, timeout=110
        )
        assert ran.returncode == 0, ran.stderr
        seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
        assert seen["lost"] == 0, "not every call was seen"
        return seen

    return see


def _namespaces() -> list[str]:
    """What goes before a command that is to have a network of its own; nothing where that cannot be had."""
    for command in (["unshare", "--net", "--mount"], ["unshare", "--net", "--mount", "--user", "--map-root-user"]):
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return []


@pytest.mark.timeout(120)
def test_a_careless_script_is_led_inside(see: Callable[[str], dict[str, Any]]) -> None:
    """So that the next test could fail: the same URLs and network, and what many an example does."""
    seen = see("naive")
    print(f"\nnaive: {sum(seen['forbidden'].values())} forbidden calls, to {len(seen['forbidden'])} addresses")  # noqa: T201
    assert sum(seen["forbidden"].values()) > 100
    assert {"tcp 169.254.169.254 80", "tcp fd00:ec2::254 80", "tcp 127.0.0.1 80", "tcp 10.0.0.1 80"} <= set(seen["forbidden"])
    assert 2 * [each["status"] for each in seen["good"]].count(200) > len(seen["good"])  # it does fetch


@pytest.mark.timeout(120)
def test_no_url_makes_the_container_call_a_forbidden_address(see: Callable[[str], dict[str, Any]]) -> None:
    seen = see("guarded")
    statuses = Counter(each["status"] for each in seen["hostile"])
    print(f"\nguarded: {dict(statuses)}, {sum(seen['forbidden'].values())} forbidden calls")  # noqa: T201
    assert len({each["url"] for each in seen["hostile"]}) >= 290
    assert seen["forbidden"] == {}
    assert seen["called"] > 100  # it does call whom it may
    assert seen["deaths"] == []


def test_each_is_refused_in_one_line_that_names_no_address(see: Callable[[str], dict[str, Any]]) -> None:
    seen = see("guarded")
    assert {each["url"] for each in seen["hostile"] if each["status"] == 200} == MAY_BE_FETCHED
    for each in seen["hostile"]:
        if each["status"] == 200:
            continue
        assert each["status"] in (400, 413), each
        assert len(each["text"]) <= 500, each
        assert each["text"].isascii(), each
        assert len(each["text"].splitlines()) == 1, each
        answer = json.loads(each["text"])
        assert not re.search(r"\d+\.\d+\.|::|/opt|/tmp|Error|Traceback|errno", answer["message"], re.IGNORECASE), each
        assert each["seconds"] < 12, each
        assert answer["message"] in seen["reasons"][answer["request_id"]], each


def test_the_log_says_why(see: Callable[[str], dict[str, Any]]) -> None:
    seen = see("guarded")
    by_url = {each["url"]: each["text"] for each in seen["hostile"]}
    for url, why in (
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is not global"),
        ("http://mixed-0.example/", "169.254.169.254 is not global"),
        ("http://never.example/", "never.example is not looked up"),
        ("http://good.example/gzip", "a Content-Encoding that was not asked for"),
    ):
        assert why in seen["reasons"][json.loads(by_url[url])["request_id"]]


def test_good_ones_become_mattes(see: Callable[[str], dict[str, Any]]) -> None:
    good = see("guarded")["good"]
    assert len(good) > 10
    assert [each for each in good if each["status"] != 200] == []


def test_two_that_send_a_byte_a_second_keep_nobody_waiting(see: Callable[[str], dict[str, Any]]) -> None:
    beside = see("guarded")["beside"]
    assert [each["status"] for each in beside["slow"]] == [400, 400]
    assert all(9 < each["seconds"] < 12 for each in beside["slow"])
    assert {each["status"] for each in beside["good"]} == {200}
    assert len(beside["good"]) > 50
    quiet, busy = (sorted(each["seconds"] for each in beside[name])[-len(beside[name]) // 100] for name in ("quiet", "good"))
    print(f"\n{len(beside['good'])} beside two slow ones: {busy * 1e3:.0f} ms, {quiet * 1e3:.0f} ms without")  # noqa: T201
    assert busy < 2 * quiet + 0.2
