"""Random networks, so the numbers below say how far a format is from float32, not how good a matte it gives."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from make_weights import random_matting_network, random_trimap_network
from matting.fba import FBA
from matting.u2net import RSU, RSUSizes, U2Net
from multigpu_inference.config import AccelerationSettings
from multigpu_inference.engine.accelerate import (
    Accelerated,
    accelerate,
    batch_buckets,
    choose_bucket,
    prefers_channels_last,
)
from multigpu_inference.engine.cuda_graphs import CudaGraphs
from multigpu_inference.errors import ModelError, StartupError
from unit.container.multigpu_inference.engine.test_cuda_graphs import FakeRecorder

PLAIN = AccelerationSettings(dtype="float32", channels_last=False, cuda_graphs=False, compile=False)
CPU = torch.device("cpu")


class Counting(nn.Module):
    """Notes the shapes it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return x * self.scale


def photos() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, 3, 20, 20, generator=generator) * 4 - 2
    return nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear")


@pytest.fixture(scope="module")
def trimap_network() -> U2Net:
    return random_trimap_network(photos())


@pytest.fixture(scope="module")
def matting_network() -> FBA:
    return random_matting_network()


def matting_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    columns = torch.arange(96).expand(2, 64, 96)
    return torch.rand(2, 3, 64, 96, generator=generator), torch.stack((columns < 30, columns > 60), dim=1).float()


def run_trimap(network: U2Net, settings: AccelerationSettings) -> Tensor:
    fused: Tensor = accelerate(copy.deepcopy(network), "cpu", settings=settings)(photos())[0]
    return fused


def run_matting(network: FBA, settings: AccelerationSettings) -> Tensor:
    estimate: Tensor = accelerate(copy.deepcopy(network), "cpu", cast_inputs=False, settings=settings)(*matting_inputs())
    return estimate


def test_float32_alone_changes_no_bit(trimap_network: U2Net, matting_network: FBA) -> None:
    with torch.inference_mode():
        trimaps, mattes = trimap_network(photos())[0], matting_network(*matting_inputs())
    assert torch.equal(run_trimap(trimap_network, PLAIN), trimaps)
    assert torch.equal(run_matting(matting_network, PLAIN), mattes)


# The logits' standard deviation is 1, alpha and colours are in [0, 1]. A format that did nothing would fail the lower
# bound, one that lost more than its rounding the upper.
@pytest.mark.parametrize(
    ("change", "logits_mean", "matte_mean"),
    [
        ({"channels_last": True}, (0, 1e-4), (0, 1e-6)),
        ({"dtype": "bfloat16"}, (1e-1, 0.8), (1e-4, 1e-2)),
        ({"dtype": "float16"}, (1e-2, 0.3), (1e-5, 2e-3)),
    ],
)
def test_how_much_each_setting_changes_the_numbers(
    trimap_network: U2Net,
    matting_network: FBA,
    change: dict[str, Any],
    logits_mean: tuple[float, float],
    matte_mean: tuple[float, float],
) -> None:
    settings = replace(PLAIN, **change)
    logits = run_trimap(trimap_network, settings) - run_trimap(trimap_network, PLAIN)
    mattes = run_matting(matting_network, settings) - run_matting(matting_network, PLAIN)
    assert logits.dtype == mattes.dtype == torch.float32
    assert logits_mean[0] <= logits.abs().mean().item() <= logits_mean[1]
    assert matte_mean[0] <= mattes.abs().mean().item() <= matte_mean[1]


def test_the_network_is_cast_but_its_batch_normalisation_is_not(trimap_network: U2Net) -> None:
    network = copy.deepcopy(trimap_network).train()
    accelerate(network, "cpu", settings=replace(PLAIN, dtype="bfloat16"))
    assert not network.training
    kinds = {type(module).__name__: {p.dtype for p in module.parameters()} for module in network.modules()}
    assert kinds["Conv2d"] == {torch.bfloat16}
    assert kinds["BatchNorm2d"] == {torch.float32}


def test_what_stands_around_the_network_stays_float32() -> None:
    seen = []

    class Network(nn.Module):
        def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, list[Tensor]]:
            seen.append((x.dtype, index.dtype))
            return x, [index, x]

    run = accelerate(Network(), "cpu", settings=replace(PLAIN, dtype="bfloat16"))
    first, (index, second) = run(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.int64))
    assert seen == [(torch.bfloat16, torch.int64)]
    assert (first.dtype, index.dtype, second.dtype) == (torch.float32, torch.int64, torch.float32)


def test_a_network_may_take_its_inputs_as_they_are() -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            return x

    accelerate(Network(), "cpu", cast_inputs=False, settings=replace(PLAIN, dtype="float16"))(torch.ones(1))


def test_results_have_no_gradients() -> None:
    assert not accelerate(Counting(), "cpu", settings=PLAIN)(torch.ones(1)).requires_grad


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", torch.float32, True),
        ("cpu", torch.bfloat16, True),
        ("cuda", torch.float32, False),
        ("cuda", torch.float16, True),
        ("cuda", torch.bfloat16, True),
    ],
)
def test_layout_by_default(device: str, dtype: torch.dtype, expected: bool) -> None:
    assert prefers_channels_last(torch.device(device), dtype) is expected


@pytest.mark.parametrize(("given", "innermost"), [(None, True), (True, True), (False, False)])
def test_layout_of_the_weights(given: bool | None, innermost: bool) -> None:
    network = nn.Conv2d(4, 4, 3)
    accelerate(network, "cpu", settings=replace(PLAIN, channels_last=given))
    assert network.weight.is_contiguous(memory_format=torch.channels_last) is innermost


@pytest.mark.parametrize(
    ("largest", "buckets"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_buckets_are_powers_of_two_and_the_largest_batch(largest: int, buckets: tuple[int, ...]) -> None:
    assert batch_buckets(largest) == buckets


@pytest.mark.parametrize(("size", "bucket"), [(0, None), (1, 1), (2, 2), (3, 4), (5, 6), (6, 6), (7, None)])
def test_the_smallest_bucket_that_holds_a_batch(size: int, bucket: int | None) -> None:
    assert choose_bucket(size, (1, 2, 4, 6)) == bucket


def graphed(network: Callable[..., Any], dtype: torch.dtype = torch.float32) -> tuple[Accelerated, FakeRecorder]:
    recorder, example, buckets = FakeRecorder(), [torch.zeros(1, 2, dtype=dtype)], (1, 2, 4)
    graphs = CudaGraphs(network, example, buckets, recorder)
    return Accelerated(network, CPU, dtype, example=example, buckets=buckets, graphs=graphs), recorder


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_graphs_give_a_batch_of_the_size_given(size: int) -> None:
    run, recorder = graphed(lambda x: x * 3)
    batch = torch.rand(size, 2)
    assert torch.equal(run(batch), batch * 3)
    assert recorder.replays == 1


def test_results_of_graphs_outlive_the_next_call() -> None:
    run, _ = graphed(lambda x: x * 3)
    first, _ = run(torch.ones(1, 2)), run(torch.zeros(1, 2))
    assert first.tolist() == [[3, 3]]


def test_results_of_graphs_in_half_precision_are_float32() -> None:
    run, _ = graphed(lambda x: x * 3, torch.bfloat16)
    first, _ = run(torch.ones(1, 2)), run(torch.zeros(1, 2))
    assert (first.dtype, first.tolist()) == (torch.float32, [[3, 3]])


@pytest.mark.parametrize("shape", [(5, 2), (1, 3), (1, 2, 1)])
def test_what_was_not_captured_runs_eagerly(shape: tuple[int, ...]) -> None:
    run, recorder = graphed(lambda x: x * 3)
    assert torch.equal(run(torch.ones(shape)), torch.full(shape, 3.0))
    assert recorder.replays == 0


def test_graphs_are_ignored_on_the_cpu_with_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    settings = replace(PLAIN, cuda_graphs=True)
    run = accelerate(Counting(), "cpu", example=torch.ones(1, 2), settings=settings)
    accelerate(Counting(), "cpu", settings=settings)  # of any shape: graphs were never meant for it
    lines = [line for line in capfd.readouterr().out.splitlines() if "cuda_graphs_ignored" in line]
    assert len(lines) == 1
    assert run(torch.ones(1, 2)).tolist() == [[3, 3]]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_network_gives_the_same(backend: str) -> None:
    torch.manual_seed(0)
    network = RSU(RSUSizes(4, 3, 4, 8))
    example, batch = photos()[:1, :, :32, :32], photos()[:, :, :32, :32]
    settings = replace(PLAIN, compile=True)
    run = accelerate(network, "cpu", example=example, max_batch_size=2, settings=settings, compile_backend=backend)
    torch.testing.assert_close(run(batch), accelerate(network, "cpu", settings=PLAIN)(batch), rtol=1e-3, atol=1e-4)


def test_compiled_network_sees_its_buckets_alone() -> None:
    compiled_for = []

    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        compiled_for.append(inputs[0].shape[0])
        return graph.forward

    settings = replace(PLAIN, compile=True)
    run = accelerate(
        nn.Sigmoid(), "cpu", example=torch.ones(1, 2), max_batch_size=4, settings=settings, compile_backend=backend
    )
    assert compiled_for == [1, 2, 4]
    for size in (1, 2, 3, 4):
        assert run(torch.ones(size, 2)).shape == (size, 2)
        assert run(torch.ones(2, size).T).shape == (size, 2)
        with torch.inference_mode():
            assert run(torch.ones(size, 2)).shape == (size, 2)
    assert compiled_for == [1, 2, 4]


def test_network_of_any_shape_is_not_compiled() -> None:
    run = accelerate(Counting(), "cpu", settings=replace(PLAIN, compile=True), compile_backend="nowhere")
    assert run(torch.ones(3)).tolist() == [3, 3, 3]


def test_network_that_cannot_be_compiled_stops_the_start_with_one_line() -> None:
    with pytest.raises(ModelError, match=r"MULTIGPU_COMPILE=1: torch\.compile of Counting failed") as caught:
        accelerate(
            Counting(),
            "cpu",
            example=torch.ones(1, 2),
            settings=replace(PLAIN, compile=True),
            compile_backend="nowhere",
        )
    assert isinstance(caught.value, StartupError)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what inductor imports
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler")
def test_inductor_compiles_for_the_cpu(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    run = accelerate(network, "cpu", example=torch.ones(1, 4), max_batch_size=2, settings=replace(PLAIN, compile=True))
    batch = torch.rand(2, 4)
    torch.testing.assert_close(run(batch), network(batch).detach())


def test_example_is_one_item() -> None:
    with pytest.raises(ValueError, match="one item"):
        accelerate(Counting(), "cpu", example=torch.ones(2, 2), settings=replace(PLAIN, compile=True))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DTYPE", "bfloat16")
    assert accelerate(Counting(), "cpu").dtype == torch.bfloat16
