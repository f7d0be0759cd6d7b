"""Scripts for one GPU of different styles, and folders with a model alone, on two replicas: nothing in them is changed."""

from __future__ import annotations

import io
import json
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faults.surroundings import tmpfs, with_mounts
from integration.endpoint import SERVICES, Endpoint
from integration.kinds import once_is_enough

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"


def plain(new_endpoint: Callable[..., Endpoint], script: str, **settings: str) -> Endpoint:
    """A container that serves one of `tests/services/plain`, not started yet."""
    return new_endpoint(**settings).with_source((SERVICES / "plain" / f"{script}.py").read_text())


def both_replicas_answer(endpoint: Endpoint, *requests: tuple[bytes | str, str, str]) -> list[bytes]:
    """The bodies of the answers to some requests, the same from both replicas."""
    answers = [
        [endpoint.invoke(body, content_type, Accept=accept) for _ in range(2)] for body, content_type, accept in requests
    ]
    assert [answer.status_code for pair in answers for answer in pair] == [200] * 2 * len(requests), endpoint.log.read_text()
    attributes = [answer.headers["X-Amzn-SageMaker-Custom-Attributes"] for pair in answers for answer in pair]
    assert {"replica=0" in each for each in attributes} == {True, False}
    assert [first.content for first, _ in answers] == [second.content for _, second in answers]
    assert [first.headers["Content-Type"] for first, _ in answers] == [second.headers["Content-Type"] for _, second in answers]
    return [first.content for first, _ in answers]


def npy(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


def test_a_model_file_and_nothing_else(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint()
    endpoint.model_dir.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.Flatten(0), torch.ones(2, 2)), str(endpoint.model_dir / "model.pt"))
    endpoint.start().ready()
    answers = both_replicas_answer(
        endpoint,
        ("[[1, 2], [3, 4]]", JSON, "*/*"),
        ("1,2\n3,4", CSV, CSV),
        ("1,2\n3,4", "text/csv; charset=utf-8", JSON),
        (npy([[1.0, 2.0], [3.0, 4.0]]), NPY, f"image/png, {NPY}"),
    )
    assert answers[:3] == [b"[1.0, 2.0, 3.0, 4.0]", b"1.0\n2.0\n3.0\n4.0\n", b"[1.0, 2.0, 3.0, 4.0]"]
    assert np.load(io.BytesIO(answers[3])).tolist() == [1.0, 2.0, 3.0, 4.0]
    # Faults of the stock toolkit, which answers each of these with 500 and a trace.
    assert endpoint.invoke("[[1], [2, 3]]").status_code == 400
    assert endpoint.invoke(b"x", "image/png").status_code == 415
    assert endpoint.invoke("[1]", Accept="image/png").status_code == 406


@once_is_enough
def test_model_fn_alone(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "only_model_fn")
    torch.manual_seed(1)
    linear = torch.nn.Linear(3, 2)
    torch.save({f"linear.{name}": value for name, value in linear.state_dict().items()}, endpoint.model_dir / "net.pth")
    (answer,) = both_replicas_answer(endpoint.start().ready(), ("[[1, 2, 3]]", JSON, JSON))
    expected = torch.softmax(linear(torch.tensor([[1.0, 2.0, 3.0]])), -1).detach()
    assert torch.allclose(torch.tensor(json.loads(answer)), expected)


@once_is_enough
def test_the_toolkits_decoder_and_encoder(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "toolkit_imports").start().ready()
    answers = both_replicas_answer(endpoint, ("[[1, 2]]", JSON, CSV), (npy([[1.0, 2.0]]), NPY, JSON))
    assert answers == [b"1.0,2.0\n", b"[[1.0, 2.0]]"]
    assert endpoint.invoke("[1]", Accept="image/png").status_code == 415  # UnsupportedFormatError, here as in the request


@once_is_enough
def test_the_pytorch_toolkits_handler_extended(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "extends_toolkit").start().ready()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(picture, "PNG")
    answers = both_replicas_answer(endpoint, (picture.getvalue(), "image/png", JSON), ("[[[[2, 4]]]]", JSON, CSV))
    assert answers == [b"[10.0, 20.0, 30.0]", b"3.0\n"]


@once_is_enough
def test_a_notebooks_script(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "for_one_gpu").start().ready()
    answers = [endpoint.invoke({"inputs": [[1, 2, 3, 4], [4, 3, 2, 1]]}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({tuple(answer.json()["labels"]) for answer in answers}) == 1
    assert answers[0].text.startswith('{\n  "labels"')  # a dict is made JSON, as the model servers do
    log = endpoint.log.read_text()
    assert "loading from" in log
    assert "predicted [" in log  # what it prints is seen


@once_is_enough
def test_functions_around_model_fn_and_the_model_servers_context(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "warms_up").start().ready()
    answer = endpoint.invoke("[1, 2]", X_Amzn_SageMaker_Custom_Attributes="a=b")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.json() == {
        "order": ["pre_model_fn", "model_fn", "model_warmup_fn", "predict_fn"],
        "threads": 1,
        "warm": True,
        "content_type": JSON,
        "attributes": "a=b",
        "has_id": True,
        "sum": 3.0,
    }


@once_is_enough
def test_modules_packages_and_files_beside_the_script(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "beside_others", SAGEMAKER_PROGRAM="serve_me.py")
    code = endpoint.model_dir / "code"
    (code / "inference.py").rename(code / "serve_me.py")
    for folder in ("helpers", "lib/vendored"):
        (code / folder).mkdir(parents=True)
    (code / "helpers" / "__init__.py").touch()
    (code / "helpers" / "scale.py").write_text("def scale(value, factor):\n    return value * factor\n")
    (code / "labels.py").write_text("LABELS = ['zero', 'one']\n")
    (code / "lib" / "vendored" / "__init__.py").write_text("VERSION = '1.2'\n")
    (endpoint.model_dir / "config.json").write_text('{"factor": 3, "label": 1}')
    (answer,) = both_replicas_answer(endpoint.start().ready(), ("[1, 2]", JSON, JSON))
    assert json.loads(answer) == {"scaled": [3, 6], "label": "one", "version": "1.2"}


@once_is_enough
def test_one_object_behind_the_four_functions(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "own_class").start().ready()
    answers = both_replicas_answer(
        endpoint, ("0,1,2\n3,4,5", CSV, CSV), ('{"instances": [[1, 1, 1]]}', JSON, "application/x-npz, application/json")
    )
    assert answers[0] == b"5.0\n14.0\n"
    assert np.load(io.BytesIO(answers[1]))["arr_0"].tolist() == [3.0]
    places = {event["function"]: event["runs_in"] for event in endpoint.events("function_placed")}
    assert places == {"input_fn": "replica", "output_fn": "pool"}


@once_is_enough
def test_transform_fn(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "only_transform_fn")
    (endpoint.model_dir / "weights.json").write_text("[1.0, 10.0]")
    answers = both_replicas_answer(endpoint.start().ready(), ("[[1, 2]]", JSON, JSON), ("1,2\n3,4", CSV, CSV))
    assert answers == [b"[21.0]", b"21.0\n43.0"]


@once_is_enough
def test_paths_that_are_written_down(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = plain(new_endpoint, "fixed_paths")
    (endpoint.model_dir / "labels.txt").write_text("cat dog")
    (endpoint.model_dir / "weights.json").write_text("[[1, 0], [0, 1]]")
    (endpoint.model_dir / "code" / "scale.json").write_text("-1")
    folder = shlex.quote(str(endpoint.model_dir.parent))
    with_mounts(endpoint, tmpfs(Path("/opt"), "1m"), "mkdir /opt/ml", f"mount --bind {folder} /opt/ml")
    del endpoint.environment["SAGEMAKER_BASE_DIR"]
    (answer,) = both_replicas_answer(endpoint.start().ready(), ("[1, 2]", JSON, JSON))
    assert json.loads(answer) == "cat"


@once_is_enough
@pytest.mark.parametrize("function", ["pre_model_fn", "model_fn", "model_warmup_fn"])
def test_what_fails_around_the_load_ends_the_start_with_its_name(new_endpoint: Callable[..., Endpoint], function: str) -> None:
    parameters = {"pre_model_fn": "model_dir", "model_fn": "model_dir", "model_warmup_fn": "model_dir, model"}
    functions = [f"def {name}({parameters[name]}):\n    {'1 / 0' if name == function else 'pass'}\n" for name in parameters]
    endpoint = new_endpoint(MULTIGPU_NUM_REPLICAS="1").with_source("\n".join(functions)).start()
    assert endpoint.wait_exit(30) == 3
    (event,) = endpoint.events("start_failed")
    assert event["message"] == f"{function} failed on replica 0: ZeroDivisionError: division by zero"
