"""A process that runs a script's functions one after another with no server around them: the serial reference.

    python -m bench.bare_loop FD PARENT_PID NAME FOLDER

Gives the right answers, and how often one process can make them. FOLDER holds the bodies, and takes the answers.
Commands come as lines on the socket, each is answered by one line of JSON:

    expected            write the answer to each body beside it
    run SECONDS         run for that long: requests, seconds and CPU seconds that it took
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from multigpu_inference import process
from multigpu_inference.config import Settings
from multigpu_inference.context import Context
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN
from multigpu_inference.user_module import MODEL_FN, UserModule, as_body, request_body


def load(content_type: str, accept: str) -> Callable[[bytes], bytes]:
    """Import the script and load its model; what answers a body."""
    settings = Settings.from_env(os.environ).model
    script = UserModule.load(settings)
    devices = tuple(f"cpu:{stage}" for stage in range(script.info().stages))
    context = Context(devices, 0, 1, {"model_dir": str(settings.model_dir), "gpu_id": None})
    model = script.call(MODEL_FN, context, str(settings.model_dir))

    def answer(body: bytes) -> bytes:
        data = script.call(INPUT_FN, context, request_body(body, content_type), content_type)
        prediction = script.call(PREDICT_FN, context, data, model)
        return as_body(script.call(OUTPUT_FN, context, prediction, accept), accept)[0]

    return answer


def main(arguments: list[str]) -> int:
    """Load, then do what the lines say until there are no more."""
    sock = process.start_as_child(arguments[:3])
    folder = Path(arguments[3]).absolute()
    given = json.loads((folder / "request.json").read_text())
    paths = sorted(folder.glob("*.input"))
    bodies = [path.read_bytes() for path in paths]
    answer = load(given["content_type"], given["accept"])
    answer(bodies[0])
    with sock, sock.makefile("rw") as lines:
        print(json.dumps({"ready": os.getpid()}), file=lines, flush=True)
        for line in lines:
            command, *rest = line.split()
            if command == "expected":
                for path, body in zip(paths, bodies, strict=True):
                    path.with_suffix(".expected").write_bytes(answer(body))
                said: dict[str, float] = {"written": len(bodies)}
            else:
                said = run(answer, bodies, float(rest[0]))
            print(json.dumps(said), file=lines, flush=True)
    return 0


def run(answer: Callable[[bytes], bytes], bodies: list[bytes], seconds: float) -> dict[str, float]:
    """Answer one body after another; stops behind the request that passes the end."""
    count, cpu_s, started = 0, time.process_time(), time.monotonic()
    while (took := time.monotonic() - started) < seconds:
        answer(bodies[count % len(bodies)])
        count += 1
    return {"requests": count, "seconds": took, "cpu_s": time.process_time() - cpu_s}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
