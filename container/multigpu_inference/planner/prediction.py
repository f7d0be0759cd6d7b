"""What each deployment would do, and which of them to recommend: pure functions of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multigpu_inference.config import Settings
from multigpu_inference.engine.placement import is_list
from multigpu_inference.planner.candidates import core_bound, device_bound, enumerate_deployments, replica_of
from multigpu_inference.planner.deployment import Candidate, Deployment
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.memory_need import memory_need, too_large
from multigpu_inference.planner.profile import Profile
from multigpu_inference.planner.simulation import CPU, Outcome, simulate

# A deployment whose devices and cores allow less than this share of the best that is known is not simulated.
_WORTH_SIMULATING = 0.8
# What is no more than so much worse counts as equal, and the next thing decides.
_SAME_RATE, _SAME_LATENCY, _SAME_STRAIN, _SAME_QUEUE = 0.02, 0.02, 0.02, 0.1
# Busier than this, a thing is what the rest waits for.
_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Prediction:
    """A deployment's figures.

    Attributes:
        deployment: What is deployed.
        saturated: With as many requests in flight as it takes.
        lone_ms: Latency of a request that is alone.
        memory: Bytes that it needs, by device.
        bound_by: What its throughput waits for, in words.
    """

    deployment: Deployment
    saturated: Outcome
    lone_ms: float
    memory: dict[str, int]
    bound_by: str

    @property
    def requests_per_second(self) -> float:
        """With as many in flight as it takes."""
        return self.saturated.requests_per_second


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was worked out.

    Attributes:
        predictions: Of what was simulated, the best first.
        recommended: The one to take.
        default: The engine's own settings.
        dropped: What does not fit into memory, with the reason.
        not_simulated: How many were left out because their devices or cores allow far less.
    """

    predictions: tuple[Prediction, ...]
    recommended: Prediction
    default: Prediction | None
    dropped: tuple[tuple[Deployment, str], ...]
    not_simulated: int


def make_plan(profile: Profile, settings: Settings, machine: Machine, target: str) -> Plan | None:
    """Predict all candidates and choose; None where none fits into memory.

    Args:
        profile: What was measured.
        settings: The container's.
        machine: What is planned for.
        target: `throughput` or `latency`.
    """
    fitting: list[Deployment] = []
    dropped: list[tuple[Deployment, str]] = []
    for deployment in enumerate_deployments(profile, settings, machine):
        replica = replica_of(deployment, profile)
        assert replica is not None  # enumerated are only those that were measured
        reason = too_large(memory_need(deployment, profile, replica), machine, replica)
        if reason is None:
            fitting.append(deployment)
        else:
            dropped.append((deployment, reason))
    bounds = [(_bound(deployment, profile, machine), deployment) for deployment in fitting]
    best = 0.0
    predictions: list[Prediction] = []
    skipped = 0
    for bound, deployment in sorted(bounds, key=lambda each: -each[0]):
        is_default = deployment.candidate == Candidate()
        if bound < _WORTH_SIMULATING * best and not is_default and target == "throughput":
            skipped += 1
            continue
        predictions.append(predict(deployment, profile, machine))
        best = max(best, predictions[-1].requests_per_second)
    if not predictions:
        return None
    recommended = recommend(predictions, target)
    default = next((each for each in predictions if each.deployment.candidate == Candidate()), None)
    predictions.sort(key=_order(target))
    return Plan(tuple(predictions), recommended, default, tuple(dropped), skipped)


def predict(deployment: Deployment, profile: Profile, machine: Machine) -> Prediction:
    """Simulate a deployment, with one request in flight and with as many as it takes."""
    replica = replica_of(deployment, profile)
    assert replica is not None
    saturated = simulate(deployment, profile, replica, machine.cores, deployment.in_flight)
    lone = simulate(deployment, profile, replica, machine.cores, 1)
    need = memory_need(deployment, profile, replica)
    return Prediction(deployment, saturated, lone.latency_ms, need, bound_by(saturated))


def recommend(predictions: Sequence[Prediction], target: str) -> Prediction:
    """The best for the target; among equals the next thing decides, at last the fewest settings that are not defaults."""
    throughput: Callable[[Prediction], float] = lambda each: 1 / each.requests_per_second  # noqa: E731
    left = list(predictions)
    narrowing = [(throughput, _SAME_RATE), (_lone, _SAME_LATENCY)]
    if target == "latency":
        narrowing.reverse()
    for value, slack in [*narrowing, (_strain, _SAME_STRAIN), (_queued, _SAME_QUEUE)]:
        limit = (1 + slack) * min(map(value, left))
        left = [each for each in left if value(each) <= limit]
    return min(left, key=lambda each: (_changes(each), _queued(each)))


def bound_by(outcome: Outcome) -> str:
    """What is busy all the time, in words."""
    name, busy = max(outcome.utilisation.items(), key=lambda each: each[1])
    if outcome.utilisation.get(CPU, 0.0) >= _BUSY:
        return CPU  # whatever else is busy then waits for a core
    if busy < _BUSY:
        return f"the requests in flight ({name} is {busy:.0%} busy)"
    stages = outcome.device_stages.get(name.removeprefix("device "), {})
    if not name.startswith("device ") or not stages:
        return name
    return f"{name}, {' and '.join(f'stage {stage}' for stage, share in stages.items() if share > 0)}"


def _bound(deployment: Deployment, profile: Profile, machine: Machine) -> float:
    replica = replica_of(deployment, profile)
    assert replica is not None
    cores = core_bound(profile, replica, machine.cores, deployment.max_batch_size)
    return min(cores, device_bound(deployment, replica))


def _lone(prediction: Prediction) -> float:
    return prediction.lone_ms


def _queued(prediction: Prediction) -> float:
    return prediction.saturated.latency_ms


def _strain(prediction: Prediction) -> float:
    """How close the pool is to its limit, where it is close: a few workers more cost little, and functions vary."""
    return max(_BUSY, prediction.saturated.utilisation.get("the pool", 0.0))


def _changes(prediction: Prediction) -> int:
    """How much there is to paste: settings that are not the engine's defaults, and a list's replicas."""
    candidate, plain = prediction.deployment.candidate, Candidate()
    names = ("placement", "num_replicas", "max_batch_size", "preprocess_workers")
    replicas = candidate.placement.count(";") + 1 if is_list(candidate.placement) else 0
    return replicas + len([name for name in names if getattr(candidate, name) != getattr(plain, name)])


def _order(target: str) -> Callable[[Prediction], tuple[float, float]]:
    if target == "latency":
        return lambda each: (each.lone_ms, -each.requests_per_second)
    return lambda each: (-each.requests_per_second, each.saturated.latency_ms)
