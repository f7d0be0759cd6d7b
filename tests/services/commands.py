"""Does what a request's JSON tells it to, in the function that it names: `{"input_fn": {"sleep_s": 1}}`.

    tell        make a file in that folder, with this process's id as its name
    sleep_s     sleep
    kill        end this process with SIGKILL, as somebody else would
    crash       end this process with SIGSEGV, as a fault in a C library does
    spin        go on for ever in C code, without letting another thread run
    eat_mb      have so much memory at a time
    exit        call sys.exit
    leave       end this process with that exit code, at once
    panic       raise what is no Exception, as extension modules in Rust do
    sticky      raise what torch raises when the CUDA context is lost
    raise       raise ValueError with a text that must not reach the client
    status      raise the toolkit's kind of error, with that status
    size        output_fn: answer with that many bytes

Answers with what each function saw, as JSON. Imports no torch, so that it starts quickly.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import re
import signal
import sys
import time

SECRET = "a path such as /opt/ml/secret"


class Panic(BaseException):
    pass


class StatusError(Exception):
    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = message


def sample_input():
    return json.dumps({}), "application/json"


def model_fn(model_dir, context):
    return {"replica": context.replica_id, "devices": context.devices, "num_replicas": context.num_replicas}


def input_fn(body, content_type, context):
    if content_type == "application/octet-stream":
        return {"commands": {}, "seen": {"length": len(body), "sum": sum(body[:100_000])}}
    if content_type != "application/json":
        raise StatusError(415, f"the content type must be application/json, not {content_type}")
    try:
        commands = json.loads(body)
    except ValueError:
        raise StatusError(400, "the body is not JSON") from None
    obey(commands, "input_fn")
    return {"commands": commands, "seen": {"input_fn": place(context)}}


def predict_fn(data, model, context):
    obey(data["commands"], "predict_fn")
    data["seen"]["predict_fn"] = place(context) | model
    if data["commands"].get("modules"):
        data["seen"]["modules"] = sorted(sys.modules)
    return data


def output_fn(prediction, accept, context):
    if accept not in ("application/json", "application/octet-stream"):
        raise StatusError(406, f"{accept} cannot be made")
    obey(prediction["commands"], "output_fn")
    size = prediction["commands"].get("output_fn", {}).get("size")
    if size is not None:
        return b"x" * size, "application/octet-stream"
    seen = prediction["seen"] | {"output_fn": place(context)}
    return json.dumps(seen)


def place(context):
    return {
        "pid": os.getpid(),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "request_id": context.request_id,
        "custom": context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes"),
        "working_folder": os.getcwd(),
    }


def obey(commands, function):
    command = commands.get(function, {})
    if "tell" in command:
        pathlib.Path(command["tell"], str(os.getpid())).touch()
    if "sleep_s" in command:
        time.sleep(command["sleep_s"])
    if "kill" in command:
        os.kill(os.getpid(), signal.SIGKILL)
    if "crash" in command:
        ctypes.string_at(0)
    if "spin" in command:
        re.match(r"(a*)*b", "a" * 64)
    if "eat_mb" in command:
        bytearray(command["eat_mb"] << 20)
    if "exit" in command:
        sys.exit(command["exit"])
    if "leave" in command:
        os._exit(command["leave"])
    if "panic" in command:
        raise Panic
    if "sticky" in command:
        raise RuntimeError("CUDA error: device-side assert triggered")
    if "raise" in command:
        raise ValueError(SECRET)
    if "status" in command:
        raise StatusError(command["status"], "as told")
