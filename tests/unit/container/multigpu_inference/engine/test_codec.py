from __future__ import annotations

import collections
import dataclasses
import io
import pickle
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from multigpu_inference.engine.codec import count_device_tensors, decode, encode

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.complex128,
]


def there_and_back(value: Any) -> Any:
    """As through a socket, which gives byte arrays."""
    return decode([bytearray(blob) for blob in encode(value)])


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    count = torch.Size(shape).numel()
    return (torch.arange(count) % 7).reshape(shape).to(dtype)


def same(a: Tensor, b: Tensor) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tolist() == b.tolist()


@dataclasses.dataclass(frozen=True)
class Picture:
    pixels: Tensor
    size: tuple[int, int]


@dataclasses.dataclass
class Album:
    pictures: list[Picture]
    mean: npt.NDArray[np.float32]


class Opaque:
    def __init__(self, tensor: Tensor) -> None:
        self.inner = {"deep": [tensor]}


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (0,), (2, 0, 3), (50, 60)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_of_any_type_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = numbers(*shape, dtype=dtype)
    assert same(there_and_back(tensor), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        numbers(40, 50).T,
        numbers(40, 50)[::2, 1::3],
        numbers(1, 7).expand(500, 7),
        numbers(3, 5).to(torch.complex64).conj(),
        (numbers(8) * (1 + 2j)).conj().imag,
        numbers(8, 3)[:, 1],
        numbers(1, 2)[:, 1],
        numbers(5, 4)[2:3, 1],
        (numbers(1) * (1 + 2j)).conj().imag,
    ],
    ids=[
        "transposed", "strided", "expanded", "conjugated", "negated", "a column", "a column of one row", "one of a column",
        "one negated",
    ],
)  # fmt: skip
def test_a_tensor_that_is_not_contiguous(tensor: Tensor) -> None:
    assert same(there_and_back(tensor), tensor)


def test_a_tensor_comes_without_its_gradient() -> None:
    tensor = (numbers(3).requires_grad_() * 2).sum()
    assert not there_and_back(tensor).requires_grad


def test_a_parameter_comes_as_a_tensor() -> None:
    assert type(there_and_back(torch.nn.Parameter(torch.ones(3)))) is Tensor


def test_a_tensor_made_under_inference_mode() -> None:
    with torch.inference_mode():
        tensor = numbers(3)
    assert same(there_and_back(tensor), tensor)


def test_a_sparse_tensor() -> None:
    tensor = torch.eye(3).to_sparse()
    assert same(there_and_back(tensor).to_dense(), torch.eye(3))


def test_one_tensor_in_two_places_stays_one() -> None:
    tensor = numbers(2000)
    first, second = there_and_back([tensor, tensor])
    assert first is second


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "complex128", "U5", "datetime64[s]"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (300, 40)], ids=str)
def test_an_array(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype)
    back = there_and_back(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)


def test_an_array_that_is_not_contiguous() -> None:
    array = np.arange(10_000).reshape(100, 100).T[::3, ::-1]
    assert np.array_equal(there_and_back(array), array)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "I;16", "F"])
def test_a_picture(mode: str) -> None:
    picture = Image.new(mode, (70, 50))
    picture.putpixel((3, 4), 1 if mode not in ("RGB", "RGBA") else (1, 2, 3, 4)[: len(mode)])
    back = there_and_back(picture)
    assert (back.mode, back.size, back.tobytes()) == (mode, (70, 50), picture.tobytes())


def test_objects_within_objects() -> None:
    album = Album([Picture(numbers(30, 40, 3), (40, 30)), Picture(numbers(2, 2, 3), (2, 2))], np.ones(3, np.float32))
    back = there_and_back({"album": album, "keys": collections.OrderedDict(b=1, a=2)})
    assert list(back["keys"]) == ["b", "a"]
    assert same(back["album"].pictures[0].pixels, album.pictures[0].pixels)
    assert back["album"].pictures[1].size == (2, 2)
    assert np.array_equal(back["album"].mean, album.mean)


def test_a_tensor_within_an_object_of_any_class() -> None:
    assert same(there_and_back(Opaque(numbers(5000))).inner["deep"][0], numbers(5000))


@pytest.mark.parametrize("value", [numbers(1000), np.ones(1000, np.float32), numbers(1000, dtype=torch.int32)])
def test_less_than_a_page_stays_within_the_pickle(value: object) -> None:
    assert len(encode(value)) == 1


@pytest.mark.parametrize("value", [numbers(1024), np.ones(1024, np.float32), Opaque(numbers(1024))])
def test_a_page_and_more_is_a_blob_of_its_own(value: object) -> None:
    pickled, *buffers = encode(value)
    assert len(pickled) < 1000
    assert [memoryview(buffer).nbytes for buffer in buffers] == [4096]


def test_a_large_tensor_is_not_copied() -> None:
    tensor = numbers(2000)
    _, buffer = encode(tensor)
    tensor[0] = 42
    assert np.frombuffer(buffer, np.float32)[0] == 42


@pytest.mark.parametrize("count", [10, 5000])
def test_tensors_and_arrays_can_be_written_to(count: int) -> None:
    tensor, array = there_and_back((numbers(count), np.zeros(count)))
    tensor[0], array[0] = 42, 42
    assert (tensor[0], array[0]) == (42, 42)


@pytest.mark.parametrize("value", [threading.Lock(), lambda: None, (i for i in "abc"), {"deep": [threading.Lock()]}])
def test_what_does_not_pickle_raises(value: object) -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        encode(value)


def test_a_device_tensor_is_counted_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    to = Tensor.to
    monkeypatch.setattr(Tensor, "to", lambda self, device: torch.zeros(self.shape) if self.is_meta else to(self, device))
    away = torch.ones(3, device="meta")  # stands for a GPU, from where a tensor can be fetched
    assert count_device_tensors([away, torch.ones(3), Opaque(torch.ones(3, device="meta")), {"x": away}]) == 2


def test_on_the_cpu_there_is_none_to_count() -> None:
    assert count_device_tensors([torch.ones(3), np.ones(3), "text"]) == 0


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "I;16", "F", "CMYK", "LA", "YCbCr"])
def test_a_picture_travels_with_its_pixels_beside_the_pickle(mode: str) -> None:
    picture = Image.effect_noise((100, 90), 50).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.new(mode, (100, 90), 777)
    picture.info["dpi"] = (72, 72)
    blobs = encode({"picture": picture})
    assert mode == "1" or len(blobs) == 2  # two colours are too few bytes to be worth it
    made = decode([bytearray(blob) for blob in blobs])["picture"]
    assert (made.mode, made.size, made.info, made.tobytes()) == (picture.mode, picture.size, picture.info, picture.tobytes())
    assert made.getpalette() == picture.getpalette()
    made.putpixel((0, 0), made.getpixel((1, 1)))  # it can be written to


def test_a_picture_of_a_class_of_its_own_is_pickled_as_it_wants_to_be() -> None:
    data = io.BytesIO()
    Image.new("RGB", (100, 100), "red").save(data, "PNG")
    with Image.open(data) as picture:
        picture.load()
        made = decode([bytearray(blob) for blob in encode(picture)])
    assert made.tobytes() == picture.tobytes()
