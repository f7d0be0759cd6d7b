from __future__ import annotations

import datetime
from typing import Any

import pytest

from scripts.audit import ROOT, PassedOver, judge, read_passed_over, without_report

TODAY = datetime.date(2026, 11, 21)
VULNERABLE = {"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"]}


def report(*vulns: dict[str, Any], skipped: int = 0) -> dict[str, Any]:
    asked = [{"name": "a", "version": "1.0", "vulns": list(vulns)}, {"name": "b", "version": "1.0", "vulns": []}]
    return {"dependencies": [*asked, *({"name": f"s{i}", "skip_reason": "not found"} for i in range(skipped))]}


def passed_over(id: str = "CVE-2026-1", package: str = "a", until: datetime.date = datetime.date(2027, 1, 1)) -> PassedOver:
    return PassedOver(id, package, "it is not called", until)


def test_nothing_found_is_well() -> None:
    verdict = judge(report(skipped=1), [], TODAY)
    assert not verdict.failed
    assert verdict.lines == ("audit: 2 of 3 packages looked up",)


def test_what_is_found_fails_and_says_what_to_do() -> None:
    verdict = judge(report(VULNERABLE), [], TODAY)
    assert verdict.failed
    assert verdict.lines[0] == "audit: a 1.0: PYSEC-1, fixed in 2.0"


@pytest.mark.parametrize("id", ["PYSEC-1", "CVE-2026-1"])
def test_what_is_passed_over_by_any_of_its_names_is_said_with_its_reason(id: str) -> None:
    verdict = judge(report(VULNERABLE), [passed_over(id)], TODAY)
    assert not verdict.failed
    assert verdict.lines[0] == "audit: a 1.0: PYSEC-1 passed over until 2027-01-01: it is not called"


@pytest.mark.parametrize("other", [passed_over(package="b"), passed_over("CVE-2026-2"), passed_over(until=TODAY)])
def test_another_package_another_advisory_and_a_day_that_has_come_count(other: PassedOver) -> None:
    assert judge(report(VULNERABLE), [other], TODAY).failed


def test_a_feed_that_knows_nothing_is_none() -> None:
    verdict = judge(report(skipped=3), [], TODAY)
    assert not verdict.failed
    assert verdict.lines == ("audit: skipped: the feed of advisories knows 2 of 5 packages, so it is not there",)


@pytest.mark.parametrize(
    "errors",
    [
        "Traceback (most recent call last):\n  …\nrequests.exceptions.ConnectionError: no route to host\n",
        "ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service with `-s SERVICE`",
        "Traceback (most recent call last):\n  …\npip_audit._service.interface.ServiceError\n",
    ],
)
def test_without_a_feed_it_is_skipped(errors: str) -> None:
    verdict = without_report(errors)
    assert not verdict.failed
    assert verdict.lines[0].startswith("audit: skipped: the feed of advisories cannot be asked: ")


@pytest.mark.parametrize(
    "errors",
    [
        "",
        "/usr/bin/python3: No module named pip_audit\n",
        "pip-audit: error: unrecognized arguments: --nope\n",
        "ERROR:pip_audit._cli:requirement a is not pinned: a\n",
    ],
)
def test_an_audit_that_does_not_run_fails(errors: str) -> None:
    verdict = without_report(errors)
    assert verdict.failed
    assert verdict.lines[0].startswith("audit: pip-audit does not run: ")


def test_the_file_can_be_used_as_it_says() -> None:
    text = (ROOT / "scripts" / "advisories.toml").read_text()
    example = "\n".join(line.removeprefix("# ") for line in text[text.index("# [[passed_over]]") :].splitlines())
    assert [each.until for each in read_passed_over(f"{text}\n{example}")][-1] == datetime.date(2027, 1, 31)
