"""Writes down what an environment is made of: a software bill of materials, in CycloneDX's JSON.

    python scripts/sbom.py FILE      of the environment that this Python runs in

The standard library alone, because it also runs while the image is built, where nothing is installed for it.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

# What the one jar among the packages was made of, beside Netty, which says so itself. Known by the package's version, and where
# the jar has no version either, by the days of its class files.
_IN_THE_JAR = {
    ("multi-model-server", "1.1.11"): (
        *(f"pkg:maven/org.apache.logging.log4j/log4j-{part}@2.17.1" for part in ("api", "core", "slf4j-impl")),
        "pkg:maven/com.google.code.gson/gson@2.8.9",
        "pkg:maven/com.lmax/disruptor@3.4.4",
        "pkg:maven/commons-cli/commons-cli@1.3.1",
        "pkg:maven/commons-io/commons-io@2.6",
        "pkg:maven/org.slf4j/slf4j-api@1.7.32",
    )
}
_NETTYS_VERSIONS = "META-INF/io.netty.versions.properties"  # one for each of its parts, all under this name


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
    known = _IN_THE_JAR.get((name, distribution.version), ())
    for purl in (*known, *(_netty(distribution) if known else ())):
        inside, _, version = purl.rpartition("/")[2].partition("@")
        yield _component(purl, inside, version)


def _netty(distribution: Distribution) -> Iterator[str]:
    for path in distribution.files or ():
        if path.suffix == ".jar":
            with zipfile.ZipFile(str(path.locate())) as jar:
                texts = [jar.read(entry).decode() for entry in jar.infolist() if entry.filename == _NETTYS_VERSIONS]
            for part, version in re.findall(r"^(netty-[\w-]+)\.version=(\S+)$", "\n".join(texts), re.MULTILINE):
                yield f"pkg:maven/io.netty/{part}@{version}"


def _component(purl: str, name: str, version: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": version}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(), indent=1) + "\n")
