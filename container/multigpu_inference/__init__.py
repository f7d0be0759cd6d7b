"""Write `inference.py` for one GPU; the container runs it on all of them.

What a script may use stands here and is loaded on first use, because the engine and the front-end workers import this
package and must never import torch with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multigpu_inference.engine.accelerate import accelerate as accelerate
    from multigpu_inference.engine.branches import Branch as Branch
    from multigpu_inference.engine.branches import Branches as Branches
    from multigpu_inference.engine.local_pool import LocalPool as LocalPool
    from multigpu_inference.engine.pipeline import Pipeline as Pipeline
    from multigpu_inference.engine.placement import plan_placement as plan_placement
    from multigpu_inference.engine.replica_set import ReplicaSet as ReplicaSet
    from multigpu_inference.engine.stage import Stage as Stage
    from multigpu_inference.export.exportable import Exportable as Exportable
    from multigpu_inference.export.exportable import Size as Size
    from multigpu_inference.fetched import Bulk as Bulk
    from multigpu_inference.fetched import Fetched as Fetched
    from multigpu_inference.runtimes.load_network import load_network as load_network
    from multigpu_inference.url_fetch.fetch_url import fetch_url as fetch_url

__version__ = "0.1.0"

_HOME = {
    "Branch": "engine.branches",
    "Branches": "engine.branches",
    "Bulk": "fetched",
    "Exportable": "export.exportable",
    "Fetched": "fetched",
    "LocalPool": "engine.local_pool",
    "Pipeline": "engine.pipeline",
    "ReplicaSet": "engine.replica_set",
    "Size": "export.exportable",
    "Stage": "engine.stage",
    "accelerate": "engine.accelerate",
    "fetch_url": "url_fetch.fetch_url",
    "load_network": "runtimes.load_network",
    "plan_placement": "engine.placement",
}
__all__ = [
    "Branch",
    "Branches",
    "Bulk",
    "Exportable",
    "Fetched",
    "LocalPool",
    "Pipeline",
    "ReplicaSet",
    "Size",
    "Stage",
    "accelerate",
    "fetch_url",
    "load_network",
    "plan_placement",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
