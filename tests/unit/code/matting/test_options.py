from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from matting.options import Options
from multigpu_inference.errors import BadRequest, NotAcceptable


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, Options()),
        ({"output": "trimap"}, Options(("trimap",))),
        ({"output": ["trimap", "alpha"]}, Options(("trimap", "alpha"))),
        ({"output": "cutout, alpha"}, Options(("cutout", "alpha"))),
        ({"background": "#F80"}, Options(("cutout",), (255, 136, 0))),
        ({"background": " #0a0B0c "}, Options(("cutout",), (10, 11, 12))),
        ({"background": "RebeccaPurple", "output": ["alpha", "cutout"]}, Options(("alpha", "cutout"), (102, 51, 153))),
        ({"max_side": 800}, Options(max_side=800)),
        ({"max_side": " 1 "}, Options(max_side=1)),
        ({"max_side": 65_535, "url": "ignored"}, Options(max_side=65_535)),
    ],
)
def test_reads_fields(fields: dict[str, Any], options: Options) -> None:
    assert Options.from_fields(fields) == options


@pytest.mark.parametrize("field", ["output", "background", "max_side"])
@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 1.5, "", "mask", [], ["mask"], ["alpha", "alpha"], {"alpha": 1}, [["alpha"]], "٣", "1e3", "x" * 1000],
)
def test_bad_values_name_the_field_the_value_and_what_is_allowed(field: str, value: Any) -> None:
    with pytest.raises(BadRequest, match=rf"^'{field}' is .+: allowed are ") as error:
        Options.from_fields({field: value})
    assert repr(value)[:60] in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("value", ["alpha," * 5_000_000, ["alpha"] * 1_000_000, "#" * 20_000_000, {"a": "b" * 20_000_000}])
@pytest.mark.parametrize("field", ["output", "background", "max_side"])
def test_of_long_values_little_is_looked_at(field: str, value: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match=rf"^'{field}' is .+: allowed are "):
            Options.from_fields({field: value})
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("colour", ["#ff", "#ffff", "#gggggg", "#ff00ff80", "rgb(1,2,3)", "transparent", "#f0f\n#"])
def test_colours_that_are_no_plain_ones(colour: str) -> None:
    with pytest.raises(BadRequest, match="allowed are #rgb, #rrggbb and the names of CSS colours"):
        Options.from_fields({"background": colour})


@pytest.mark.parametrize("side", [0, 65_536, "65536", "-5"])
def test_sides_out_of_range(side: Any) -> None:
    with pytest.raises(BadRequest, match="from 1 to 65535"):
        Options.from_fields({"max_side": side})


def test_a_background_needs_a_cutout() -> None:
    with pytest.raises(BadRequest, match="'background' goes with the output cutout, and 'output' is alpha, trimap"):
        Options.from_fields({"background": "red", "output": ["alpha", "trimap"]})


@pytest.mark.parametrize(
    ("options", "accept", "outputs"),
    [
        (Options(), "image/png", ("alpha",)),
        (Options(), "image/webp;cutout", ("cutout",)),
        (Options(("trimap",)), "image/png;cutout", ("trimap",)),
        (Options(("alpha", "trimap")), "*/*", ("alpha", "trimap")),
    ],
)
def test_accept_decides_where_the_body_does_not(options: Options, accept: str, outputs: tuple[str, ...]) -> None:
    assert options.with_accept(accept).outputs == outputs


def test_several_outputs_are_refused_where_json_is_not_accepted() -> None:
    with pytest.raises(NotAcceptable, match="application/json only"):
        Options(("alpha", "trimap")).with_accept("image/png")
