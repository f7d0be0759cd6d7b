from __future__ import annotations

import json
import re
from pathlib import Path

from cyclonedx.model.bom import Bom

from scripts.sbom import _IN_THE_JAR, bill

ROOT = Path(__file__).parents[3]


def test_it_lists_what_is_installed_once_and_in_order() -> None:
    purls = [component["purl"] for component in bill()["components"]]
    assert purls == sorted(set(purls))
    assert any(purl.startswith("pkg:pypi/torch@") for purl in purls)
    assert any(purl.startswith("pkg:pypi/multigpu-inference@") for purl in purls)


def test_it_lists_what_the_front_ends_jar_carries() -> None:
    """Another version of the package carries other things: then what stands there is to be looked up anew."""
    pinned = re.search(r"^multi-model-server==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert ("multi-model-server", pinned[1]) in _IN_THE_JAR
    versions = {component["name"]: component["version"] for component in bill()["components"]}
    assert {"commons-cli", "commons-io", "slf4j-api"} <= versions.keys()
    assert {versions[f"netty-{part}"] for part in ("codec-http", "codec-redis", "resolver-dns")} == {"4.1.91.Final"}


def test_cyclonedxs_own_library_reads_it() -> None:
    read = Bom.from_json(json.loads(json.dumps(bill())))  # type: ignore[attr-defined]  # made by a decorator
    assert len(read.components) == len(bill()["components"])
