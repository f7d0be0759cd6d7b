"""What a check has found, in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu_inference.check.advice import HOPS, advice
from multigpu_inference.check.checked import Checked
from multigpu_inference.messages import FETCH_FN, INPUT_FN, OUTPUT_FN, PREDICT_FN, STORE_FN, TRANSFORM_FN

_SHOWN_DEVICES = 8


def report(checked: Checked) -> Iterator[str]:
    """Lines for a person."""
    yield from _what_is_there(checked)
    yield from _answer(checked)
    if not checked.works:
        return
    yield ""
    yield "in parallel:"
    yield from _items(list(_parallel(checked)) or ["nothing: one replica, with one request at a time"])
    waits = list(_not_parallel(checked))
    if waits:
        yield "not in parallel:"
        yield from _items(waits)
    advised = list(advice(checked))
    yield "to gain more:" if advised else "to gain more: nothing that this check can see"
    yield from _items(advised)


def _items(texts: Iterator[str] | list[str]) -> Iterator[str]:
    yield from (f"  - {text}" for text in texts)


def _what_is_there(checked: Checked) -> Iterator[str]:
    info = checked.info
    own, defaults = sorted(info.functions - info.defaults), sorted(info.defaults)
    if own:
        yield f"{checked.script} has {', '.join(own)}{_or_else(defaults)}"
    elif info.import_error is None:
        yield "no script: the toolkit's defaults serve the model file"
    where = f"on {_count(checked.gpus, 'GPU')}" if checked.gpus else "on the CPU"
    yield f"{where}: {_count(len(checked.placement), 'replica')}, {_placement(checked)}"
    if checked.load_ms:
        yield f"model_fn loads in {max(checked.load_ms) / 1e3:.1f} s, in each replica's own process"


def _or_else(defaults: list[str]) -> str:
    return f"; the toolkit's defaults are {', '.join(defaults)}" if defaults else ""


def _placement(checked: Checked) -> str:
    shown = "; ".join(" → ".join(devices) for devices in checked.placement[:_SHOWN_DEVICES])
    more = len(checked.placement) - _SHOWN_DEVICES
    return f"on {shown}" + (f" and {more} more" if more > 0 else "")


def _answer(checked: Checked) -> Iterator[str]:
    if checked.sample is None:
        yield (
            "no request to try, so only the model was loaded: --body FILE --content-type TYPE names one, or the script has a "
            "sample_input()"
        )
        return
    assert checked.answered is not None
    tried = f"{checked.sample.source} ({checked.sample.content_type}, {len(checked.sample.body)} bytes)"
    answered = checked.answered
    if answered.status == 200:
        yield f"{tried} is answered: {answered.content_type}, {answered.size} bytes"
        hops = (f"{name.removesuffix('_ms')} {value:.1f}" for name, value in answered.milliseconds.items())
        yield f"milliseconds: {', '.join(hops)}"
        return
    yield f"{tried} is NOT answered: status {answered.status}, {answered.reason}"
    for failure in checked.failures[:1]:
        yield f"  {failure.get('reason') or failure.get('message')}"
        yield from (f"  | {line}" for line in str(failure.get("trace", "")).rstrip().splitlines()[-6:])


def _parallel(checked: Checked) -> Iterator[str]:
    replicas = len(checked.placement)
    predicts = TRANSFORM_FN if TRANSFORM_FN in checked.info.functions else PREDICT_FN
    if replicas > 1:
        yield f"{replicas} requests at a time in {predicts}, one on each replica"
    if checked.has_stages and checked.info.stages > 1:
        yield f"the {checked.info.stages} stages of a replica: while one works on a batch, the one before it works on the next"
    if checked.streams > 1:
        yield f"{checked.streams} batches at a time in each stage, on one copy of its weights"
    if checked.branches:
        counts = (f"{name} ({_count(number, 'batch', 'batches')} at a time)" for name, number in checked.branches.items())
        yield f"branches, on the same request: {', '.join(counts)}"
    for function in (INPUT_FN, OUTPUT_FN):
        place = checked.places.get(function)
        if place is not None and place.runs_in == "pool":
            cost = _cost(checked, function)
            yield f"{function}{cost}, in {checked.pool_workers} CPU processes, while the replicas work on other requests"
    for function in sorted({FETCH_FN, STORE_FN} & checked.info.functions):
        yield f"{function}, on many threads of a process of its own"
    if replicas == 1 and not checked.places:
        yield "nothing: there is one replica (MULTIGPU_NUM_REPLICAS; by default one for each GPU)"


def _not_parallel(checked: Checked) -> Iterator[str]:
    if checked.answered is None:
        return
    if TRANSFORM_FN in checked.info.functions:
        yield f"all of {TRANSFORM_FN}: it runs on the replica's thread, and the device waits for whatever it does on the CPU"
    for function, place in checked.places.items():
        if place.runs_in == "replica":
            yield f"{function} stays on the replica's thread{_cost(checked, function)}: {place.because}"


def _cost(checked: Checked, function: str) -> str:
    milliseconds = checked.answered.milliseconds.get(HOPS[function]) if checked.answered is not None else None
    return "" if milliseconds is None else f" ({milliseconds:.1f} ms)"


def _count(number: int, noun: str, many: str | None = None) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {many or f'{noun}s'}"
