"""Looks whether there are known vulnerabilities in the packages of `constraints.txt`, by pip-audit; a part of `make check`.

    python scripts/audit.py      exit code 1 where there are, 0 where there are none, or where nobody can be asked

A check must not fail for want of a network: where the feed of advisories cannot be reached, one line says so. What
`advisories.toml` passes over, with a reason and a date, is said as well, and does not count until that date.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LIMIT_S = 40.0
_ANSWER_S = 5
# What pip-audit, or the library that it asks with, says where the feed does not answer, or not as it should.
_NO_FEED = re.compile(r"requests\.exceptions\.|_service\.interface\.|network may be blocking")
# Packages that are not found one by one, such as a build with a version of its own, are no reason to doubt the feed.
_LEAST_SHARE_ASKED = 0.5


@dataclass(frozen=True)
class PassedOver:
    """An advisory that does not count.

    Attributes:
        id: Its name, or one of its other names.
        package: The package that it is about.
        because: Why it does not reach us.
        until: From this day on it counts.
    """

    id: str
    package: str
    because: str
    until: datetime.date


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        lines: To be printed.
        failed: Whether the check fails.
    """

    lines: tuple[str, ...]
    failed: bool = False


def judge(report: Mapping[str, Any], passed_over: Sequence[PassedOver], today: datetime.date) -> Verdict:
    """What pip-audit's report comes to. Pure."""
    packages = report["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    if len(asked) < _LEAST_SHARE_ASKED * len(packages):
        return Verdict(
            (f"audit: skipped: the feed of advisories knows {len(asked)} of {len(packages)} packages, so it is not there",)
        )
    lines, failed = [], False
    for package in asked:
        for found in package["vulns"]:
            names = {found["id"], *found.get("aliases", ())}
            known = next((each for each in passed_over if each.id in names and each.package == package["name"]), None)
            what = f"audit: {package['name']} {package['version']}: {found['id']}"
            if known is not None and today < known.until:
                lines.append(f"{what} passed over until {known.until}: {known.because}")
                continue
            failed = True
            fixed = ", ".join(found.get("fix_versions", ())) or "no version"
            again = f" (was passed over until {known.until})" if known is not None else ""
            lines.append(f"{what}, fixed in {fixed}{again}")
    return Verdict((*lines, f"audit: {len(asked)} of {len(packages)} packages looked up"), failed)


def without_report(errors: str) -> Verdict:
    """What it comes to where pip-audit has made no report: skipped where the feed is the reason, else failed. Pure."""
    last = (errors.strip().splitlines() or ["pip-audit said nothing"])[-1][:200]
    if _NO_FEED.search(errors):
        return Verdict((f"audit: skipped: the feed of advisories cannot be asked: {last}",))
    return Verdict((f"audit: pip-audit does not run: {last}",), failed=True)


def read_passed_over(text: str) -> list[PassedOver]:
    """The advisories of `advisories.toml`."""
    return [PassedOver(**each) for each in tomllib.loads(text).get("passed_over", [])]


def main() -> int:
    """Ask, judge, print; the exit code."""
    passed_over = read_passed_over((ROOT / "scripts" / "advisories.toml").read_text())
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"),
        *("--format", "json", "--aliases", "on", "--desc", "off", "--progress-spinner", "off", "--timeout", str(_ANSWER_S)),
        *("--cache-dir", str(ROOT / "build" / "audit")),
    ]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
        verdict = judge(json.loads(asked.stdout), passed_over, datetime.date.today())
    except subprocess.TimeoutExpired:
        verdict = Verdict((f"audit: skipped: the feed of advisories did not answer within {_LIMIT_S:g} s",))
    except json.JSONDecodeError:
        verdict = without_report(asked.stderr)
    print("\n".join(verdict.lines))
    return int(verdict.failed)


if __name__ == "__main__":
    sys.exit(main())
