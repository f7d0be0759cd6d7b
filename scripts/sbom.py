"""Writes down what an environment is made of: a software bill of materials, in CycloneDX's JSON.

    python scripts/sbom.py FILE      of the environment that this Python runs in

The standard library alone, because it also runs while the image is built, where nothing is installed for it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

# What the one jar among the packages was made of; it says so of no more than a part. Known by the package's version.
_NETTY = ("buffer", "codec", "codec-http", "codec-http2", "common", "handler", "resolver", "transport")
_IN_THE_JAR = {
    ("multi-model-server", "1.1.11"): (
        *(f"pkg:maven/io.netty/netty-{part}@4.1.91.Final" for part in _NETTY),
        *(f"pkg:maven/org.apache.logging.log4j/log4j-{part}@2.17.1" for part in ("api", "core", "slf4j-impl")),
        "pkg:maven/com.google.code.gson/gson@2.8.9",
        "pkg:maven/com.lmax/disruptor@3.4.4",
    )
}


def bill() -> dict[str, Any]:
    """Everything that is installed, in the order of its names; the same environment always gives the same."""
    found = {each["purl"]: each for distribution in distributions() for each in _components(distribution)}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [found[purl] for purl in sorted(found)],
    }


def _components(distribution: Distribution) -> Iterator[dict[str, Any]]:
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    component = _component(f"pkg:pypi/{name}@{quote(distribution.version)}", name, distribution.version)
    licence = distribution.metadata["License-Expression"]
    if licence:
        component["licenses"] = [{"expression": licence}]
    yield component
    for purl in _IN_THE_JAR.get((name, distribution.version), ()):
        inside, _, version = purl.rpartition("/")[2].partition("@")
        yield _component(purl, inside, version)


def _component(purl: str, name: str, version: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": version}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(), indent=1) + "\n")
