from __future__ import annotations

from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.finals import finalists
from multigpu_inference.planner.prediction import Prediction
from multigpu_inference.planner.simulation import Outcome
from unit.container.multigpu_inference.planner.planned import chain, deployed, gpus, stage

PROFILE = chain(stage(1.0, 1.0, 1.0, 1.0), stage(1.0, 1.0, 1.0, 1.0))
LIST = "cuda:0,cuda:1"


def prediction(rate: float, candidate: Candidate) -> Prediction:
    return Prediction(deployed(PROFILE, gpus(2), candidate), Outcome(rate, 1.0, {}), 1.0, {}, "")


def test_of_each_kind_of_placement_the_largest_batches_and_the_fewest_processes_are_left() -> None:
    recommended = prediction(100, Candidate("ring", 2, 4, 10))
    others = [
        prediction(99, Candidate("ring", 4, 8, 10)),
        prediction(98, Candidate("ring", 2, 8, 10)),
        prediction(97, Candidate("same", 2, 8, 10)),
        prediction(96, Candidate(LIST, None, 8, 10)),
        prediction(95, Candidate(LIST, 4, 8, 10)),
    ]
    assert finalists([recommended, *others], recommended) == [
        Candidate("ring", 2, 4, 10),
        Candidate("ring", 2, 8, 14),
        Candidate("same", 2, 8, 14),
        Candidate(LIST, None, 8, 14),
    ]


def test_who_is_predicted_far_less_is_not_looked_at() -> None:
    recommended, slow = prediction(100, Candidate("ring", 2, 8, 10)), prediction(80, Candidate(LIST, None, 8, 10))
    assert {each.placement for each in finalists([recommended, slow], recommended)} == {"ring"}
