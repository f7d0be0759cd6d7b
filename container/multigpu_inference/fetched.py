"""What a script's `fetch_fn` may return beside a plain object: more than one thing for the container to know.

fetch_fn ──► object                      input_fn gets it in the body's place
         ──► Fetched(object, store=…)    and store_fn gets the answer, with `store`
         ──► Bulk([…, …])                each a request of its own, answered together in order
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fetched:
    """One input, and what `store_fn` needs.

    Attributes:
        data: What `input_fn` is given in the body's place. It must pickle; arrays beside the pickle, not in it.
        store: What `store_fn` is given beside the answer; None: it is not called.
    """

    data: Any
    store: Any = None


@dataclass(frozen=True, slots=True)
class Bulk:
    """Several inputs in one request: each goes through the replicas as a request of its own, side by side.

    Attributes:
        items: In the order of the answers: objects or `Fetched`, and a `ServingError` in the place of one that cannot be read.
    """

    items: Sequence[Any]
