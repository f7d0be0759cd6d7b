from __future__ import annotations

import hashlib

import pytest

from multigpu_inference.engine.telemetry.trace_id import INFERENCE_ID, trace_id

HEX = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("text", [HEX, HEX.upper(), "0af76519-16cd-43dd-8448-eb211c80319c", f" {HEX} "])
def test_an_id_of_that_length_is_the_trace_itself(text: str) -> None:
    assert trace_id({INFERENCE_ID: text}) == int(HEX, 16)


@pytest.mark.parametrize("text", ["order 7", HEX[:-1], HEX + "0", "0" * 32, "0af7651916cd43dd-8448eb211c80319c", "ä"])
def test_any_other_text_is_hashed(text: str) -> None:
    assert trace_id({INFERENCE_ID: text}) == int(hashlib.sha256(text.encode()).hexdigest()[:32], 16)


@pytest.mark.parametrize("headers", [{}, {INFERENCE_ID: ""}, {INFERENCE_ID: " "}])
def test_without_an_id_there_is_none(headers: dict[str, str]) -> None:
    assert trace_id(headers) is None


def test_it_is_never_the_one_number_that_is_not_allowed() -> None:
    assert trace_id({INFERENCE_ID: "00000000-0000-0000-0000-000000000000"}) not in (None, 0)
