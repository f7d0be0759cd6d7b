"""Shows what a model does with photos: a PNG with a row of photo, trimap, alpha and cut-out for each.

python demo/contact_sheet.py MODEL_FOLDER SHEET.png PHOTO...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Started as a script, from anywhere: the reference application is a folder, not an installed package.
_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT / folder) for folder in ("code", "container") if str(_ROOT / folder) not in sys.path]

from matting.decode import decode  # noqa: E402
from matting.pipeline import load_pipeline_stages  # noqa: E402

_CELL = 320  # pixels; the longer side of each picture
_MARGIN = 8
_PAPER = (236, 72, 168)  # behind the cut-outs: a colour that few subjects have


def make_sheet(model_dir: Path, photos: Sequence[Path]) -> Image.Image:
    """Send photos through both networks and lay out what comes of them.

    Args:
        model_dir: folder with the two checkpoints.
        photos: JPEG, PNG or WebP files.

    Returns:
        The sheet, RGB: one row for each photo.
    """
    stages: list[Any] = load_pipeline_stages(model_dir, ["cpu"])
    trimap_stage, matting_stage = stages
    step = _CELL + _MARGIN
    sheet = Image.new("RGB", (4 * step + _MARGIN, len(photos) * step + _MARGIN), "white")
    for row, path in enumerate(photos):
        photo = decode(path.read_bytes()).pixels
        drawn = trimap_stage([photo])
        matte = matting_stage(drawn)[0]
        alpha = Image.fromarray(matte.alpha.numpy())
        paper = Image.new("RGB", alpha.size, _PAPER)
        paper.paste(Image.fromarray(matte.foreground.numpy()), mask=alpha)
        cells = (Image.fromarray(photo.numpy()), Image.fromarray(np.asarray(drawn[0].trimap)), alpha, paper)
        for column, cell in enumerate(cells):
            small = cell.convert("RGB")
            small.thumbnail((_CELL, _CELL))
            at = (_MARGIN + column * step + (_CELL - small.width) // 2, _MARGIN + row * step + (_CELL - small.height) // 2)
            sheet.paste(small, at)
    return sheet


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python demo/contact_sheet.py MODEL_FOLDER SHEET.png PHOTO...")
    target = Path(sys.argv[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    make_sheet(Path(sys.argv[1]), [Path(name) for name in sys.argv[3:]]).save(target)
    print(f"{target}  {target.stat().st_size / 1000:.0f} KB")
