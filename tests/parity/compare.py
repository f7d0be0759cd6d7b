"""Compare our networks with the published classes, under the same weights: `python tests/parity/compare.py --help`.

    seeded weights ──┬──► a file ──► our loader ──► ours ──────────┐
                     └──► load_state_dict ──► the published class ─┴──► largest difference, a line each

For a person who has clones of the two repositories; `golden/README.md` says how to run it and when. Each network runs in
float32, as it is served, and in float64, where nothing but another formula can make a difference. The exit code is 1 if a
difference is beyond its tolerance, and 2 if there is nothing to compare with.
"""
# ruff: noqa: T201  (a script, which talks to the person who started it)

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / folder) for folder in ("code", "tests") if str(_ROOT / folder) not in sys.path]

from matting.distance import distance_features  # noqa: E402
from matting.fba import fuse  # noqa: E402
from matting.imagenet import normalise  # noqa: E402
from matting.trimap import two_channels  # noqa: E402
from parity import cases, published, seeds  # noqa: E402
from parity.published import ComparisonError, checked_out  # noqa: E402

U2NET_SIZES = ((64, 64), (320, 320))  # beside the golden ones
_SAME = 0.0  # a tolerance: both read the same numbers


class Row(NamedTuple):
    """A line of the table; without a tolerance it is a figure to know, without a difference it was not compared."""

    what: str
    shape: tuple[int, ...]
    difference: float | None
    tolerance: float | None

    @property
    def verdict(self) -> str:
        """`ok`, `FAILED`, `figure` or `skipped`."""
        if self.difference is None:
            return "skipped"
        if self.tolerance is None:
            return "figure"
        return "ok" if self.difference <= self.tolerance else "FAILED"

    def __str__(self) -> str:
        """The line as it is printed."""
        difference = "" if self.difference is None else f"{self.difference:.2e}"
        tolerance = "" if self.tolerance is None else f"{self.tolerance:.0e}"
        shape = " x ".join(map(str, self.shape))
        return f"{self.what:<60} {shape:>18} {difference:>10} {tolerance:>10}  {self.verdict}"


def main() -> int:
    """Compare, print, and write the golden arrays if asked to; the exit code."""
    parser = argparse.ArgumentParser(description="Compare our networks with the published classes, under the same weights.")
    parser.add_argument("--u2net", type=Path, required=True, metavar="CLONE", help=f"clone of {published.U2NET.repository}")
    parser.add_argument(
        "--fba", type=Path, required=True, metavar="CLONE", help=f"clone of {published.FBA_RELEASED.repository}"
    )
    parser.add_argument("--write", action="store_true", help="write the golden arrays, if nothing else differs; needs OpenCV")
    arguments = parser.parse_args()
    try:
        return _compare(arguments.u2net, arguments.fba, arguments.write)
    except ComparisonError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2


def _compare(u2net: Path, fba: Path, write: bool) -> int:
    if write and importlib.util.find_spec("cv2") is None:
        raise ComparisonError("expected OpenCV for --write (pip install opencv-python-headless), found none")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, seed {seeds.SEED}, CPU")
    for source in (published.U2NET, published.FBA_RELEASED, published.FBA_HEAD):
        print(f"{source.repository} at {source.commit}")
    print(f"\n{'what':<60} {'shape':>18} {'difference':>10} {'tolerance':>10}  verdict")
    golden: dict[str, dict[str, Tensor]] = {"u2net": {}, "fba": {}}
    failed = 0
    with torch.inference_mode():
        for row in (*_u2net(u2net, golden["u2net"]), *_fba(fba, golden["fba"])):
            failed += row.verdict == "FAILED"
            print(row, flush=True)
        if write and not failed:
            for name, arrays in golden.items():
                cases.write_golden(name, arrays)
        for row in _golden(golden):
            failed += row.verdict == "FAILED"
            print(row)
    print(f"\n{failed} failed" if failed else "\nall within their tolerances")
    return 1 if failed else 0


def _u2net(clone: Path, golden: dict[str, Tensor]) -> Iterator[Row]:
    """U²-Net's seven maps; `golden` receives what of the published class's the tests know."""
    sizes: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for case in cases.U2NET_CASES:
        sizes.setdefault((case.variant, case.channels), list(U2NET_SIZES)).append((case.height, case.width))
    with checked_out(clone, published.U2NET):
        for (variant, channels), shapes in sizes.items():
            theirs = published.u2net_class(variant)(3, channels).eval()
            state = cases.seeded_state(theirs)
            theirs.load_state_dict(state, strict=True)
            ours = cases.load_u2net(state)
            name = f"U2-Net {variant}, {channels} out"
            for dtype, tolerance in ((torch.float32, cases.U2NET_TOLERANCE), (torch.float64, cases.EXACT_TOLERANCE)):
                theirs, ours = theirs.to(dtype), ours.to(dtype)
                for height, width in shapes:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # it calls functions by names that torch has deprecated
                        expected = torch.cat(theirs(cases.u2net_input(height, width).to(dtype)))
                    found = cases.u2net_maps(ours, height, width)
                    for what, part in (("fused map", slice(0, 1)), ("side maps", slice(1, None))):
                        yield _row(f"{name}, {_format(dtype)}: {what}", found[part], expected[part], tolerance)
                    case = cases.U2NetCase(variant, channels, height, width)
                    if case in cases.U2NET_CASES:
                        golden[case.name] = cases.sample(expected)  # float64's, which comes last


def _row(what: str, found: Tensor, expected: Tensor, tolerance: float | None) -> Row:
    return Row(what, tuple(expected.shape), cases.largest_difference(found, expected), tolerance)


def _format(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fba(clone: Path, golden: dict[str, Tensor]) -> Iterator[Row]:
    """FBA's inputs, network and fusion; `golden` receives what of the published code's the tests know."""
    with checked_out(clone, published.FBA_RELEASED):
        yield from _fba_inputs(golden)
        theirs = published.released_fba().eval()
        state = cases.seeded_state(theirs)
        theirs.load_state_dict(state, strict=True)
        transforms = published.with_opencv("networks.transforms")
        released = {size: _estimate(theirs, *cases.fba_input(*size)) for size in cases.FBA_SIZES}
        ours = cases.load_fba(state)
        for size, expected in released.items():
            yield from _estimate_rows("FBA, float32", cases.fba_estimate(ours, *size), expected, cases.FBA_TOLERANCE)
        theirs, ours = theirs.double(), cases.exact_fba(state)
        for size in cases.FBA_SIZES:
            image, trimap = (part.double() for part in cases.fba_input(*size))
            found = cases.fba_estimate(ours, *size)
            yield from _estimate_rows("FBA, float64", found, _estimate(theirs, image, trimap), cases.EXACT_TOLERANCE)
            if transforms is None:
                yield Row("FBA, float64, each with its own features (needs OpenCV)", tuple(found.shape), None, None)
                continue
            normalised = transforms.groupnorm_normalise_image(image.clone(), format="nchw")
            expected = theirs(image, trimap, normalised, _published_features(transforms, trimap).double())
            yield _row("FBA, float64, each with its own features", found, expected, cases.GOLDEN_TOLERANCE)
            golden[f"estimate {size[0]}x{size[1]}"] = cases.sample(expected)
        yield _fusion(golden)
    with checked_out(clone, published.FBA_HEAD):
        yield from _newest(state, released)


def _estimate(network: Any, image: Tensor, trimap: Tensor) -> Tensor:
    """What a published network makes of our normalised picture and our distance features."""
    estimate: Tensor = network(image, trimap, normalise(image), distance_features(trimap).to(image.dtype))
    return estimate


def _estimate_rows(what: str, found: Tensor, expected: Tensor, tolerance: float | None) -> Iterator[Row]:
    for name, part in (("alpha", slice(0, 1)), ("foreground", slice(1, 4)), ("background", slice(4, 7))):
        yield _row(f"{what}: {name}", found[:, part], expected[:, part], tolerance)


def _fba_inputs(golden: dict[str, Tensor]) -> Iterator[Row]:
    """Normalised picture, distance features, two-channel trimap."""
    transforms = published.with_opencv("networks.transforms")
    for (height, width), foreground in [*((size, True) for size in cases.FBA_SIZES), ((64, 64), False)]:
        image, trimap = cases.fba_input(height, width, foreground=foreground)
        what = f"distance features{'' if foreground else ', no foreground'}"
        if transforms is None:
            yield Row(f"{what} (needs OpenCV)", (1, 6, height, width), None, cases.FEATURE_TOLERANCE)
            continue
        expected = _published_features(transforms, trimap)
        yield _row(what, distance_features(trimap), expected, cases.FEATURE_TOLERANCE)
        golden[f"features{'' if foreground else ', no foreground'} {height}x{width}"] = cases.sample(expected)
        if foreground:
            expected = transforms.groupnorm_normalise_image(image.clone(), format="nchw")
            yield _row("normalised picture", normalise(image), expected, cases.FEATURE_TOLERANCE)
    yield _two_channels()


def _two_channels() -> Row:
    """The trimap as both read it, from a file with each of the 256 greys."""
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    loader = published.with_opencv("dataloader")
    if loader is None:
        return Row("two-channel trimap (needs OpenCV)", (2, 16, 16), None, _SAME)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "greys.png"
        Image.fromarray(greys).save(path)
        expected = torch.from_numpy(loader.read_trimap(str(path))).permute(2, 0, 1)
    return _row("two-channel trimap, all greys", two_channels(torch.from_numpy(greys)), expected, _SAME)


def _published_features(transforms: Any, trimap: Tensor) -> Tensor:
    """The published distance features of a two-channel trimap, as its script brings them to the network."""
    features = transforms.trimap_transform(trimap[0].permute(1, 2, 0).numpy())
    return torch.from_numpy(features).permute(2, 0, 1)[None].float()


def _fusion(golden: dict[str, Tensor]) -> Row:
    """The fusion and its clamps alone, on estimates that no network has made plausible."""
    theirs = published.fba_fusion()
    image, alpha, foreground, background = cases.fusion_input()
    expected = torch.cat(theirs(alpha, image, foreground, background), dim=1)
    golden["fusion"] = expected
    return _row("fusion of random estimates", fuse(image, alpha, foreground, background), expected, cases.FEATURE_TOLERANCE)


def _newest(state: dict[str, Tensor], released: dict[tuple[int, int], Tensor]) -> Iterator[Row]:
    """How far the newest published network is from the released one, which is not ours to mend."""
    newest = published.head_fba()
    newest.load_state_dict(state, strict=True)
    newest.eval()
    for size, expected in released.items():
        found = _estimate(newest, *cases.fba_input(*size))
        yield from _estimate_rows("newest published FBA against the released", found, expected, None)
    once = {key: value.clone() for key, value in newest.state_dict().items()}
    newest.eval()
    worst = max(cases.largest_difference(value, once[key]) for key, value in newest.state_dict().items())
    yield Row("newest published FBA: its weights after a second .eval()", (), worst, None)


def _golden(fresh: dict[str, dict[str, Tensor]]) -> Iterator[Row]:
    """Whether the golden arrays are what the published classes give now."""
    for name, arrays in fresh.items():
        kept = cases.read_golden(name) if (cases.GOLDEN / f"{name}.npz").is_file() else {}
        for key, expected in arrays.items():
            yield _row(f"golden/{name}.npz: {key}", kept.get(key, torch.empty(0)), expected, cases.GOLDEN_TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
