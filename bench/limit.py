"""What a setup is compared with: chosen by what is served and through which front end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import setup as setups
from bench.setup import Setup

NONE, IDEAL, BARE_LOOPS, STOCK, MMS = "-", "ideal", "bare loops", setups.STOCK, setups.MMS


@dataclass(frozen=True, slots=True)
class Limit:
    """What is possible at best, or what is to be passed, and how it is found out.

    Attributes:
        name: `ideal`, `bare loops`, `stock`, `mms`; `-` where it is not asked for.
        per_second: Measures it, or tells it.
        measured: Whether it varies from one time to the next.
    """

    name: str
    per_second: Callable[[], float | None]
    measured: bool


def limit_name(setup: Setup) -> str:
    """Which limit a setup has.

    A script that does nothing has no limit of its own: what is left is the server. So `noop` through multi-model-server is
    compared with multi-model-server alone, and what goes through the HTTP front end with the same through multi-model-server.
    """
    if not setup.limit:
        return NONE
    if setup.workload.simulation is not None:
        return IDEAL
    if not setup.workload.empty:
        return BARE_LOOPS
    if setup.front_end == setups.HTTP:
        return MMS
    return STOCK if setup.workload.name == "noop" else NONE
