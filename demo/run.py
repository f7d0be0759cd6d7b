"""`make demo` and `make serve`: the whole endpoint on this machine.

    python demo/run.py           photos to mattes and cut-outs, into build/demo/
    python demo/run.py --stay    the same endpoint on port 8080 and a page to try it on port 8081, until Ctrl-C
    python demo/run.py --stay --model PATH    the same with a model of your own: its folder or model.tar.gz

Packs and unpacks the model as a deployment would, and starts the container's own entry point on it. Any failure is one
line, with the end of the endpoint's log where that says more, and exit code 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import requests

from answer import Answer, post_photo
from demo_error import DemoError
from demo_model import PHOTOS, ROOT, prepare_model, take_model
from endpoint import Endpoint, free_port, refuse_busy_port
from page_server import PORT_VARIABLE, PageServer
from progress import Progress
from table import format_answers

BUILD = ROOT / "build"
OUTPUT = BUILD / "demo"
# What is asked for each photo, and how.
ACCEPTS = {"matte": "image/png", "cutout": "image/png;cutout"}
# The page's live view is made of /metrics, which this front end alone has.
PAGE_DEFAULTS = {"MULTIGPU_FRONT_END": "http"}


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description="Run the endpoint on this machine.")
    parser.add_argument("--stay", action="store_true", help="serve until Ctrl-C instead of sending photos")
    parser.add_argument("--model", type=Path, help="with --stay: a model folder or model.tar.gz to serve instead of the demo's")
    arguments = parser.parse_args()
    stay: bool = arguments.stay
    # As Ctrl-C: leave through the contexts, so that the endpoint is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(stay, arguments.model, Progress())
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
        return 0 if stay else 130
    return 0


def _run(stay: bool, model: Path | None, progress: Progress) -> None:
    port = _port(8080 if stay else None)
    refuse_busy_port(port)  # before the model folder of the one that may be running there is made anew
    base_dir = BUILD / "opt" / "ml" if model is None else BUILD / "own" / "ml"
    with ExitStack() as contexts:
        # The page before the endpoint, which takes its time to start: a port that is taken is told at once.
        page = contexts.enter_context(PageServer(port, _page_port())) if stay and model is None else None
        if model is None:
            progress.say("packing demo/weights into build/model.tar.gz, unpacking it into build/opt/ml/model")
            prepare_model(BUILD / "model.tar.gz", base_dir / "model")
        else:
            take_model(model, base_dir)
        progress.say(f"starting the container's entry point on port {port}")
        defaults = {} if page is None else PAGE_DEFAULTS
        endpoint = contexts.enter_context(Endpoint(base_dir, port, OUTPUT / "endpoint.log", progress, defaults))
        progress.say(f"ready: {endpoint.url}/ping answers 200")
        if stay:
            print(f"\nCtrl-C stops it; its log is {_shown(OUTPUT / 'endpoint.log')}", flush=True)
            if page is not None:
                _show_how_to_ask(endpoint.url, page.url)
            endpoint.wait()
        answers = _send_photos(endpoint.url, progress)
    progress.say("stopped with exit code 0")
    replicas = {answer.attributes.get("replica") for answer in answers}
    print(f"\n{format_answers(answers)}\n")
    print(f"{len(answers)} answers from {len(replicas)} replicas; pictures and endpoint.log in {_shown(OUTPUT)}/")
    print("what the demo's small networks can cut out, and what they cannot: demo/weights/README.md")


def _send_photos(url: str, progress: Progress) -> list[Answer]:
    photos = sorted(path for path in PHOTOS.glob("*") if not path.name.startswith("."))
    if not photos:
        raise DemoError(f"no photos in {_shown(PHOTOS)}/")
    answers = []
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business between this process and its own machine
        for photo in photos:
            for kind, accept in ACCEPTS.items():
                progress.wait(f"{photo.name}: {kind}")
                answer = post_photo(session, url, photo, kind, accept)
                (OUTPUT / f"{photo.stem}.{kind}.png").write_bytes(answer.body)
                answers.append(answer)
            progress.say(f"{photo.name}: {' and '.join(ACCEPTS)} written")
    return answers


def _show_how_to_ask(url: str, page_url: str) -> None:
    photo = min(PHOTOS.glob("*.jpg"), default=PHOTOS / "photo.jpg")
    print(
        f"\nThe endpoint:        {url}\nA page to try it:    {page_url}\n\n"
        f"Or from a terminal:\n\n"
        f"  curl -H 'Content-Type: image/jpeg' -H 'Accept: image/png;cutout' \\\n"
        f"       --data-binary @{_shown(photo)} -o cutout.png {url}/invocations\n",
        flush=True,
    )


def _page_port() -> int | None:
    text = os.environ.get(PORT_VARIABLE, "").strip()
    if text and not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise DemoError(f"{PORT_VARIABLE}={text!r}: allowed is a port from 1 to 65535")
    return int(text) if text else None


def _port(default: int | None) -> int:
    text = os.environ.get("SAGEMAKER_BIND_TO_PORT", "").strip()
    if not text:
        return free_port() if default is None else default
    if not text.isdigit() or not 1 <= int(text) <= 32_766:
        raise DemoError(f"SAGEMAKER_BIND_TO_PORT={text!r}: allowed is a port from 1 to 32766")
    return int(text)


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
