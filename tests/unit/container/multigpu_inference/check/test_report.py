from __future__ import annotations

import dataclasses
from typing import Any

from multigpu_inference.check.checked import Answered, Checked, FunctionPlace
from multigpu_inference.check.report import report
from multigpu_inference.messages import ScriptInfo
from multigpu_inference.planner.sample import Sample

FOUR = frozenset({"model_fn", "input_fn", "predict_fn", "output_fn"})
POOL = FunctionPlace("pool", None)
HOPS = {"queue_ms": 1.0, "preprocess_ms": 5.0, "predict_ms": 20.0, "postprocess_ms": 2.0}
ANSWERED = Answered(200, None, "application/json", 12, HOPS)
GOOD = Checked(
    script="inference.py",
    info=ScriptInfo(functions=FOUR, sample=(b"abc", "text/csv")),
    placement=(("cuda:0",), ("cuda:1",)),
    gpus=2,
    pool_workers=6,
    load_ms=(900.0, 1500.0),
    places={"input_fn": POOL, "output_fn": POOL},
    sample=Sample(b"abc", "text/csv", "*/*", "sample_input()"),
    answered=ANSWERED,
)


def text(**changes: Any) -> str:
    return "\n".join(report(dataclasses.replace(GOOD, **changes)))


def test_what_is_there_and_what_is_parallel() -> None:
    assert text() == "\n".join(
        [
            "inference.py has input_fn, model_fn, output_fn, predict_fn",
            "on 2 GPUs: 2 replicas, on cuda:0; cuda:1",
            "model_fn loads in 1.5 s, in each replica's own process",
            "sample_input() (text/csv, 3 bytes) is answered: application/json, 12 bytes",
            "milliseconds: queue 1.0, preprocess 5.0, predict 20.0, postprocess 2.0",
            "",
            "in parallel:",
            "  - 2 requests at a time in predict_fn, one on each replica",
            "  - input_fn (5.0 ms), in 6 CPU processes, while the replicas work on other requests",
            "  - output_fn (2.0 ms), in 6 CPU processes, while the replicas work on other requests",
            "to gain more:",
            "  - a replica works on one request at a time: with the model given as stages (README, 'Two models, two devices') "
            "batches form by themselves, copies overlap with work, and a second model has a device of its own",
        ]
    )


def test_a_function_that_stays_is_named_with_its_reason_its_cost_and_what_to_do() -> None:
    stays = FunctionPlace("replica", "it reads the global LABELS, which model_fn sets")
    said = text(places={"input_fn": POOL, "output_fn": stays})
    assert "not in parallel:\n  - output_fn stays on the replica's thread (2.0 ms): it reads the global LABELS" in said
    assert "free output_fn from globals" in said
    assert "the device now waits 2.0 ms of each request" in said
    quick = dataclasses.replace(ANSWERED, milliseconds={**HOPS, "postprocess_ms": 0.1})
    assert "it is quick (0.1 ms), so there is little to gain" in text(places={"output_fn": stays}, answered=quick)
    pickles = FunctionPlace("replica", "the prediction does not pickle (TypeError)")
    assert "return tensors, arrays, or plain Python objects" in text(places={"output_fn": pickles})


def test_too_few_cpu_processes_are_counted() -> None:
    slow = dataclasses.replace(ANSWERED, milliseconds={**HOPS, "preprocess_ms": 98.0})
    assert (
        "6 CPU processes need 100.0 ms for each request, and keep 2 replicas waiting that need 20.0 ms: 10 processes"
        in text(answered=slow)
    )
    assert "CPU processes need" not in text()


def test_stages_and_fetching_are_parallel_and_need_no_advice() -> None:
    staged = dataclasses.replace(ANSWERED, milliseconds={"stage_1_ms": 20.0, "stage_2_ms": 10.0})
    said = text(
        info=ScriptInfo(stages=2, functions=FOUR | {"fetch_fn"}, sample=(b"", "a/b")),
        placement=(("cuda:0", "cuda:1"), ("cuda:1", "cuda:0")),
        answered=staged,
    )
    assert "on cuda:0 → cuda:1; cuda:1 → cuda:0" in said
    assert "the 2 stages of a replica" in said
    assert "fetch_fn, on many threads of a process of its own" in said
    assert said.endswith("to gain more: nothing that this check can see")


def test_transform_fn_and_the_toolkits_defaults_are_named() -> None:
    info = ScriptInfo(functions=frozenset({"model_fn", "transform_fn"}), defaults=frozenset({"model_fn"}))
    said = text(info=info, places={})
    assert said.startswith("inference.py has transform_fn; the toolkit's defaults are model_fn\n")
    assert "all of transform_fn: it runs on the replica's thread" in said
    assert "split transform_fn into input_fn, predict_fn and output_fn" in said
    assert "add sample_input()" in said
    assert text(info=ScriptInfo(functions=FOUR, defaults=FOUR)).startswith(
        "no script: the toolkit's defaults serve the model file\n"
    )


def test_one_replica_on_the_cpu_without_a_request() -> None:
    said = text(placement=(("cpu:0",),), gpus=0, sample=None, answered=None, places={})
    assert "on the CPU: 1 replica, on cpu:0" in said
    assert "no request to try, so only the model was loaded" in said
    assert "nothing: there is one replica" in said


def test_one_replica_that_does_all_itself_is_said_to_have_nothing_in_parallel() -> None:
    stays = FunctionPlace("replica", "it reads the global LABELS, which model_fn sets")
    said = text(placement=(("cpu:0",),), gpus=0, places={"input_fn": stays, "output_fn": stays})
    assert "in parallel:\n  - nothing: one replica, with one request at a time\nnot in parallel:" in said


def test_streams_and_branches_are_named() -> None:
    said = text(streams=4, branches={"matte": 4, "faces": 1})
    assert "  - 4 batches at a time in each stage, on one copy of its weights\n" in said
    assert "  - branches, on the same request: matte (4 batches at a time), faces (1 batch at a time)\n" in said


def test_a_request_that_is_not_answered_shows_what_the_log_has_and_no_more() -> None:
    failed = Answered(500, "input_fn failed", "", 0, {})
    failure = {"reason": "input_fn: KeyError: 'a'", "trace": "Traceback\n  File x, line 3\nKeyError: 'a'\n"}
    said = text(answered=failed, failures=(failure,))
    assert "is NOT answered: status 500, input_fn failed\n  input_fn: KeyError: 'a'\n" in said
    assert said.endswith("  |   File x, line 3\n  | KeyError: 'a'")


def test_a_script_that_needs_a_gpu_to_be_imported_says_what_that_costs() -> None:
    assert "let the script be imported where no GPU is visible (ImportError: no GPU)" in text(
        info=ScriptInfo(import_error="ImportError: no GPU")
    )
