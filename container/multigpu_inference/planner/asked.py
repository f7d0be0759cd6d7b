"""What the planner asks of its profilers, and what they tell: small messages, with the bytes beside them as blobs.

    planner  ──MeasureFunction, MeasureReplica──►  profiler
             ◄──Progress … FunctionMeasured, ReplicaMeasured, Failure──

A profiler answers one thing after another, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu_inference.messages import Findings, Invocation, Sent
from multigpu_inference.planner.profile import Cost, FunctionProfile, ReplicaProfile


@dataclass(frozen=True, slots=True)
class MeasureFunction(Sent):
    """Of a pool worker: time a function. The blobs are the body, or the encoded prediction.

    Attributes:
        function: `input_fn` or `output_fn`.
        invocation: The request that it is timed with.
    """

    function: str
    invocation: Invocation


@dataclass(frozen=True, slots=True)
class FunctionMeasured(Sent):
    """A function was timed; the blobs are what it gave, encoded, or the answer's body.

    Attributes:
        profile: What it takes.
        content_type: Of the answer's body.
    """

    profile: FunctionProfile
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class MeasureReplica(Sent):
    """Of a replica worker: time the model. The blobs are the body, then what the pool's `input_fn` gave (none: run it here).

    Attributes:
        invocation: The request that it is timed with.
        preprocess: As `MULTIGPU_PREPROCESS`.
    """

    invocation: Invocation
    preprocess: str


@dataclass(frozen=True, slots=True)
class ReplicaMeasured(Sent):
    """The model was timed; the blobs are the answer's body (empty where it was not made here), then the encoded prediction.

    Attributes:
        profile: What it takes.
        content_type: Of the answer's body.
        findings: Of the trial that says where the functions can run; None where none was made.
        input_cost: Of `input_fn` here.
        output_cost: Of `output_fn` here.
    """

    profile: ReplicaProfile
    content_type: str | None
    findings: Findings | None
    input_cost: Cost
    output_cost: Cost


@dataclass(frozen=True, slots=True)
class Progress(Sent):
    """User code is about to be called: what is measured, in words."""

    text: str
