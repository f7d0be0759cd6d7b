"""What is there before anything is measured: the script's own word, and the GPUs, each asked in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from multigpu_inference.child_process import Command, ask
from multigpu_inference.config import Settings
from multigpu_inference.engine.devices import DEVICE_ORDER, cuda_devices, gpu_is_present
from multigpu_inference.engine.process_pool import NO_GPU
from multigpu_inference.errors import ModelError
from multigpu_inference.messages import ScriptInfo


async def probe(settings: Settings, environ: Mapping[str, str], *, need_import: bool = True) -> tuple[ScriptInfo, int]:
    """The script, and how many GPUs torch can use, as the engine finds them.

    Args:
        settings: Of the container.
        environ: The variables that say so.
        need_import: Whether a script that cannot be imported on a machine without a GPU is refused, where there is none.

    Raises:
        StartupError: where the script breaks its contract, cannot be imported on a machine without a GPU, or where there is a
            GPU that torch cannot use.
    """
    deadline = asyncio.get_running_loop().time() + settings.engine.startup_timeout_s
    script = Command("script-probe", "multigpu_inference.engine.script_probe", (), {**environ, **NO_GPU})
    cuda = Command("device-probe", "multigpu_inference.engine.device_probe", (), {**environ, **DEVICE_ORDER})
    asked = settings.engine.devices
    gpus = 0
    if asked == "cpu" or (asked == "auto" and not gpu_is_present()):
        info: ScriptInfo = await ask(script, deadline)
    else:
        info, report = await asyncio.gather(ask(script, deadline), ask(cuda, deadline))
        gpus = len(cuda_devices(report))
    if info.import_error is not None and not gpus and need_import:
        raise ModelError(info.import_error)
    return info, gpus
