"""The two kinds of front end that the same tests run against.

A test that asks for `endpoint`, `new_endpoint`, `front_end` or `new_front_end` runs once for each. What holds for one of them
alone says so with a mark; so does what takes seconds and is the engine's doing, which one front end is enough for.
"""

from __future__ import annotations

import pytest

from multigpu_inference.config import HTTP, MMS

KINDS = (MMS, HTTP)
mms_only = pytest.mark.parametrize("kind", [MMS], indirect=True)
http_only = pytest.mark.parametrize("kind", [HTTP], indirect=True)
once_is_enough = http_only
