"""Graphs are captured by a stand-in that needs no device: it keeps the work and writes its results over the first ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from multigpu_inference.engine.cuda_graphs import CudaGraphs, map_tensors


class FakeRecorder:
    def __init__(self) -> None:
        self.turns = 0
        self.replays = 0
        self._taken = False

    def record(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        static = work()

        def replay() -> None:
            assert self._taken, "replayed outside a turn"
            self.replays += 1
            fresh: list[Tensor] = []
            map_tensors(work(), fresh.append)
            map_tensors(static, lambda output: output.copy_(fresh.pop(0)))

        return replay, static

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.turns += 1
        self._taken = True
        yield
        self._taken = False


def double(x: Tensor) -> Tensor:
    return x * 2


def test_a_graph_computes_from_what_was_copied_in() -> None:
    graphs = CudaGraphs(double, [torch.zeros(1, 3)], [1, 2, 4], FakeRecorder())
    batch = torch.arange(6.0).view(2, 3)
    assert torch.equal(graphs(2, [batch], torch.clone), batch * 2)


def test_a_smaller_batch_fills_the_first_rows() -> None:
    graphs = CudaGraphs(double, [torch.zeros(1, 3)], [4], FakeRecorder())
    batch = torch.arange(9.0).view(3, 3)
    result = graphs(4, [batch], torch.clone)
    assert result.shape == (4, 3)
    assert torch.equal(result[:3], batch * 2)


def test_a_result_outlives_the_next_replay() -> None:
    graphs = CudaGraphs(double, [torch.zeros(1, 1)], [1], FakeRecorder())
    first = graphs(1, [torch.ones(1, 1)], torch.clone)
    graphs(1, [torch.full((1, 1), 7.0)], torch.clone)
    assert first.item() == 2


def test_several_inputs_and_nested_outputs() -> None:
    def network(a: Tensor, b: Tensor) -> tuple[Tensor, list[Tensor]]:
        return a + b, [a, (a * b)]

    graphs = CudaGraphs(network, [torch.zeros(1, 2), torch.zeros(1, 2)], [1, 2], FakeRecorder())
    total, (first, product) = graphs(1, [torch.full((1, 2), 3.0), torch.full((1, 2), 4.0)], torch.clone)
    assert (total.tolist(), first.tolist(), product.tolist()) == ([[7, 7]], [[3, 3]], [[12, 12]])


def test_each_call_is_one_replay_in_one_turn() -> None:
    recorder = FakeRecorder()
    graphs = CudaGraphs(double, [torch.zeros(1, 1)], [1, 2], recorder)
    graphs(2, [torch.ones(1, 1)], torch.clone)
    assert (recorder.turns, recorder.replays) == (1, 1)


@pytest.mark.parametrize("network", [lambda x: x.sum(), lambda x: x[:1], lambda x: (x, x.flatten(0, 1))])
def test_an_output_without_the_batchs_dimension_is_refused(network: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ValueError, match="an output has the shape"):
        CudaGraphs(network, [torch.zeros(1, 3)], [2], FakeRecorder())


def test_structure_is_kept() -> None:
    class Pair(NamedTuple):
        a: Tensor
        b: tuple[list[Tensor], None]

    mapped = map_tensors(Pair(torch.zeros(1), ([torch.ones(1)], None)), lambda x: x + 1)
    assert isinstance(mapped, Pair)
    assert mapped.a.item() == 1
    assert mapped.b[0][0].item() == 2
    assert mapped.b[1] is None
