"""`create_endpoint.py --local`: what the settings deploy, on this machine.

archive ─► model folder, read-only ─► container ─► /ping ─► runtime proxy ─► smoke ─► serves until Ctrl-C

With docker where it has the settings' image, else the container's entry point in this environment. The model, the container's
settings and the requests are those of a deployment; the machine is not, so what this shell says of the container goes first.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from deploy_error import Invalid, SmokeFailed
from deploy_progress import DeployProgress
from deploy_settings import DeploySettings
from desired import VARIANT
from endpoint import cuda_visible, free_port
from local_account import KEY, REGION, LocalAccount
from local_container import (
    PORT_VARIABLE,
    ContainerCommand,
    LocalContainer,
    docker_command,
    docker_words,
    entry_point_command,
    overrides,
)
from local_model import unpack_read_only
from model_archive import prepare_archive
from runtime_proxy import ProxySettings, RuntimeProxy
from smoke import content_type_of, smoke
from source_paths import ROOT

PREFERRED_PORT = 8082
_DOCKER_LIMIT_S = 30.0


def serve(settings: DeploySettings) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        settings: Of the deployment.

    Raises:
        Invalid: the archive, a setting or the port is not allowed, or the same endpoint is served already.
        Unhealthy: the container ends, or does not stop cleanly.
        TimedOut: it is not ready within instance.startup_timeout_s.
        SmokeFailed: it does not answer as it should.
        KeyboardInterrupt: interrupted before it served.
    """
    # As Ctrl-C: leave through the contexts, so that the container is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = DeployProgress()
    folder = ROOT / "build" / "deploy" / settings.name / "local"
    log = folder / "container.log"
    with ExitStack() as contexts:
        contexts.enter_context(_alone(folder))
        command = local_command(settings, folder / "ml", os.environ)
        wanted = ProxySettings(
            endpoint=settings.name,
            container_port=command.port,
            output=folder / "async-output",
            variant=VARIANT,
            log=log.as_uri(),
            async_concurrency=settings.asynchronous.max_concurrent if settings.asynchronous else 4,
        )
        # The proxy first: a port that is taken is told at once, and at the end it passes on what the container still answers.
        proxy = _enter_proxy(contexts, wanted, os.environ.get(PORT_VARIABLE, "").strip(), progress)
        with progress.phase("archive"):
            unpack_read_only(prepare_archive(settings).path, folder / "ml" / "model")
        for variable in overrides(os.environ):
            progress.say(f"{variable}={os.environ[variable]} of this shell goes before the settings")
        with progress.phase("image, with docker" if command.remove else "entry point: no docker here has the settings' image"):
            limit_s = float(settings.instance.startup_timeout_s)
            container = contexts.enter_context(LocalContainer(command, log, limit_s, progress.say))
        with progress.phase("smoke"):
            _smoke(settings, proxy.url, container.replicas(), log, progress)
        print(how_to_call(proxy.url, wanted.output, log, settings), flush=True)
        try:
            container.wait()
        except KeyboardInterrupt:
            progress.say("stopping")
    progress.say("stopped")


def local_command(settings: DeploySettings, base_dir: Path, shell: Mapping[str, str]) -> ContainerCommand:
    """How the container is started: with docker where it has the image, else by its entry point.

    Args:
        settings: Of the deployment.
        base_dir: Stands for /opt/ml.
        shell: This process's environment.
    """
    environment = {"MULTIGPU_ENDPOINT_NAME": settings.name, **settings.environment}
    image = settings.image.uri or settings.image.local
    port = free_port()
    if has_image(image, shell):
        name = f"{settings.name}-local-{os.getpid()}"
        return docker_command(image, base_dir, environment, shell, port, cuda_visible(), name)
    return entry_point_command(base_dir, environment, shell, port)


def has_image(image: str, shell: Mapping[str, str]) -> bool:
    """Whether there is a docker that works and has the image."""
    try:
        found = subprocess.run(
            [*docker_words(shell), "image", "inspect", "--format", "{{.Id}}", image],
            capture_output=True,
            env=dict(shell),
            timeout=_DOCKER_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def how_to_call(url: str, output: Path, log: Path, settings: DeploySettings) -> str:
    """What an application needs to reach it, to be pasted into a shell.

    Args:
        url: The proxy's.
        output: The folder of asynchronous answers.
        log: The container's.
        settings: Of the deployment.
    """
    file = settings.smoke.files[0]
    sent = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    kind = content_type_of(file, settings.smoke.content_type)
    only_there = "" if settings.asynchronous else "; on SageMaker that needs a table [async]"
    return (
        f"\nexport AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME={url}\n"
        "# where this shell has no region and no credentials; any will do:\n"
        f"export AWS_DEFAULT_REGION={REGION} AWS_ACCESS_KEY_ID={KEY} AWS_SECRET_ACCESS_KEY={KEY}\n\n"
        f"  python examples/client.py --endpoint {settings.name} {sent} answer.png\n"
        f"  aws sagemaker-runtime invoke-endpoint --endpoint-name {settings.name} --content-type {kind} "
        f"--body fileb://{sent} answer.png\n\n"
        f"invoke_endpoint_async takes file:// and s3:// and answers into {output}{only_there}\n"
        f"The container's log is {log}; Ctrl-C stops it all.\n"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second one with the same name: it would take the model away from under the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Invalid(
                f"{folder.parent.name} is served on this machine already: stop that one, or set another name"
            ) from None
        yield


def _enter_proxy(contexts: ExitStack, settings: ProxySettings, port: str, progress: DeployProgress) -> RuntimeProxy:
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise Invalid(f"{PORT_VARIABLE}={port!r}: allowed is a port from 1 to 65535")
    for number in (int(port),) if port else (PREFERRED_PORT, 0):
        with suppress(OSError):
            return contexts.enter_context(RuntimeProxy(replace(settings, port=number), progress.say))
    raise Invalid(f"port {port} cannot be served on: set {PORT_VARIABLE} to a free one")


def _smoke(settings: DeploySettings, url: str, replicas: int | None, log: Path, progress: DeployProgress) -> None:
    try:
        smoke(LocalAccount(url), progress, settings.name, settings.smoke, replicas, instances=1)
    except SmokeFailed as error:
        raise SmokeFailed(f"{error} (its log: {log})") from error
