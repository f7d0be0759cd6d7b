from __future__ import annotations

import pytest
import torch

from matting.options import Options
from matting.photo import Photo
from matting.pipeline import Matte
from matting.prediction import Prediction
from matting.save import Save

MATTE = Matte(*(torch.zeros(shape, dtype=torch.uint8) for shape in ((4, 5), (4, 5, 3), (4, 5))))


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        (("alpha",), {"alpha"}),
        (("trimap",), {"trimap"}),
        (("cutout",), {"alpha", "foreground"}),
        (("alpha", "trimap"), {"alpha", "trimap"}),
        ((), {"alpha", "foreground", "trimap"}),
    ],
)
def test_keeps_what_the_outputs_need(outputs: tuple[str, ...], kept: set[str]) -> None:
    photo = Photo(torch.zeros(4, 5, 3, dtype=torch.uint8), Options(outputs), (8, 10), Save("a"))
    prediction = Prediction.of(MATTE, photo)
    assert {name for name in ("alpha", "foreground", "trimap") if getattr(prediction, name) is not None} == kept
    assert (prediction.options, prediction.size, prediction.save) == (photo.options, (8, 10), Save("a"))
