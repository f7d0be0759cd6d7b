"""The planner's way from a model folder to a recommendation.

    probes ──► profiling ──► the engine with one replica: the container's own share ──► candidates, simulated ──► the best

With `--verify` the engine is started again, with the best and with its defaults. Runs in the planner's process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from multigpu_inference.config import Settings
from multigpu_inference.engine.capacity import available_cores
from multigpu_inference.errors import DeviceError
from multigpu_inference.planner.candidates import device_bound, replica_of
from multigpu_inference.planner.deployment import Candidate, Deployment, deploy
from multigpu_inference.planner.engine_run import Measured
from multigpu_inference.planner.finals import finalists
from multigpu_inference.planner.machine import Machine, free_memory_bytes
from multigpu_inference.planner.overhead import overhead_of, with_batches
from multigpu_inference.planner.prediction import Plan, Prediction, make_plan, predict
from multigpu_inference.planner.probes import probe
from multigpu_inference.planner.profile import Overhead, Profile
from multigpu_inference.planner.profiling import Profiling
from multigpu_inference.planner.sample import Sample, choose_sample
from multigpu_inference.planner.simulation import CPU
from multigpu_inference.planner.verification import Verified, measure_deployment
from multigpu_inference.requirements import install_requirements
from multigpu_inference.run_folder import run_folder

# One replica that takes requests one by one, with the fewest pool workers that the engine has by default.
_SINGLE = Candidate("ring", 1, 1, 2)
_OVERHEAD_S, _FINAL_S = 1.5, 3.0
# Where the cores are busier than this, it counts what the container takes of them at high rates.
_CPU_MATTERS = 0.8


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for.

    Attributes:
        devices: Devices to plan for; None: those that are there.
        cores: CPU cores to plan for; None: those that are there.
        target: `throughput` or `latency`.
        body: A file with a request's body; None: the script's sample.
        content_type: Of that body.
        accept: What is asked for.
    """

    devices: int | None = None
    cores: int | None = None
    target: str = "throughput"
    body: Path | None = None
    content_type: str | None = None
    accept: str | None = None


@dataclass(frozen=True, slots=True)
class Final:
    """One of those that the engine chose among.

    Attributes:
        prediction: What was said.
        measured: What it did.
    """

    prediction: Prediction
    measured: Measured


@dataclass(frozen=True)
class Planned:
    """What came of it.

    Attributes:
        machine: What is planned for.
        sample: What was measured with.
        profile: What was measured.
        plan: What was worked out.
        foreign_cores: Cores that something else kept busy while it was measured.
        finals: What was measured to choose among them, where the CPU bounds everything.
    """

    machine: Machine
    sample: Sample
    profile: Profile
    plan: Plan
    foreign_cores: float
    finals: tuple[Final, ...] = ()


@dataclass
class Planning:
    """The planning of one model.

    Attributes:
        settings: The container's.
        own_environ: Variables for all processes, beside this one's.
        environ: The settings and those.
        wishes: The command line's.
        say: Takes what is being done, in words.
    """

    settings: Settings
    own_environ: Mapping[str, str]
    environ: Mapping[str, str]
    wishes: Wishes
    say: Callable[[str], None]

    async def run(self) -> Planned:
        """Measure, predict, choose.

        Raises:
            StartupError: where the model does not load or cannot answer the request, with exit code 3; where there is no
                request or a setting is not allowed, with 2.
        """
        wishes = self.wishes
        with run_folder() as folder:
            requirements = self.settings.model.code_dir / "requirements.txt"
            await install_requirements(requirements, folder, self.settings.engine.startup_timeout_s)
            self.say("reading the script")
            script, gpus = await probe(self.settings, self.own_environ)
            sample = choose_sample(
                script, wishes.body, wishes.content_type, wishes.accept or self.settings.model.default_accept
            )
            machine = plan_for(wishes, self.settings, gpus)
            profile = await Profiling(self.settings, self.own_environ, script, sample, machine, self.say).run()
            overhead, foreign_cores = await self._measure_overhead(profile, sample, gpus)
            profile = dataclasses.replace(profile, overhead=overhead)
            self.say("working out placements")
            plan = make_plan(profile, self.settings, machine, wishes.target)
            if plan is not None and _is_there(machine) and _cpu_matters(plan):
                profile = await self._measure_under_load(profile, plan, sample)
                plan = make_plan(profile, self.settings, machine, wishes.target)
            finals: tuple[Final, ...] = ()
            if plan is not None and _is_there(machine) and _cpu_matters(plan) and wishes.target == "throughput":
                finals = await self._measure_finalists(profile, plan, sample, machine)
                best = max(finals, key=lambda each: each.measured.requests_per_second)
                plan = dataclasses.replace(plan, recommended=best.prediction)
        if plan is None:
            raise DeviceError("no deployment of this model fits into memory")
        return Planned(machine, sample, profile, plan, foreign_cores, finals)

    async def _measure_overhead(self, profile: Profile, sample: Sample, gpus: int) -> tuple[Overhead, float]:
        """What the container adds where one replica serves the model; and how many cores something else kept busy."""
        self.say("the engine with one replica")
        at_hand = plan_for(Wishes(), self.settings, gpus)
        stages = len(next(iter(profile.replicas))[0])
        deployment = deploy(_SINGLE, self.settings, at_hand, stages)
        return await self._overhead_of(deployment, profile, sample)

    async def _measure_under_load(self, profile: Profile, plan: Plan, sample: Sample) -> Profile:
        """The container's CPU time for a request at high rates, where caches are warm and wake-ups are shared.

        The deployment that keeps the CPU busiest shows it: the one whose devices allow the most.
        """
        self.say("the engine under load, because the CPU is what bounds it")
        busiest = max(plan.predictions, key=lambda each: _device_bound(each, profile))
        loaded, _ = await self._overhead_of(busiest.deployment, profile, sample)
        sizes = busiest.saturated.batch_sizes
        overhead = with_batches(profile.overhead, loaded, len(sizes), sum(sizes) / len(sizes))
        return dataclasses.replace(profile, overhead=overhead)

    async def _measure_finalists(self, profile: Profile, plan: Plan, sample: Sample, machine: Machine) -> tuple[Final, ...]:
        """Have the engine serve with the settings that are left; the first are those that were predicted to be the best."""
        found = []
        stages = len(next(iter(profile.replicas))[0])
        for candidate in finalists(plan.predictions, plan.recommended):
            deployment = deploy(candidate, self.settings, machine, stages)
            self.say(f"the engine with {candidate.placement}, {deployment.capacity.num_replicas} replicas")
            measured = await measure_deployment(deployment, self.environ, sample, _FINAL_S)
            found.append(Final(predict(deployment, profile, machine), measured))
        return tuple(found)

    async def _overhead_of(self, deployment: Deployment, profile: Profile, sample: Sample) -> tuple[Overhead, float]:
        replica = replica_of(deployment, profile)
        assert replica is not None  # only what was measured is deployed
        measured = await measure_deployment(deployment, self.environ, sample, _OVERHEAD_S)
        return overhead_of(measured, profile, replica, deployment.max_batch_size), measured.foreign_cores

    async def verify(self, planned: Planned) -> list[Verified]:
        """Measure the recommended settings and the defaults; `DeviceError` where what was planned for is not there."""
        machine, plan = planned.machine, planned.plan
        if not _is_there(machine):
            raise DeviceError(
                f"--verify needs the {machine.devices} GPUs that were planned for: {machine.devices_at_hand} are there"
            )
        found = []
        chosen: dict[str, Prediction | None] = {"recommended": plan.recommended, "defaults": plan.default}
        for name, prediction in chosen.items():
            if prediction is None or (name == "defaults" and prediction is plan.recommended):
                continue
            self.say(f"the engine with the settings {name}")
            measured = await measure_deployment(prediction.deployment, self.environ, planned.sample)
            found.append(Verified(name, prediction, measured))
        return found


def _cpu_matters(plan: Plan) -> bool:
    return plan.recommended.saturated.utilisation[CPU] > _CPU_MATTERS


def _is_there(machine: Machine) -> bool:
    """Whether the engine can be started as planned: devices of the CPU are as many as are asked for."""
    return not machine.gpus or machine.devices <= machine.devices_at_hand


def _device_bound(prediction: Prediction, profile: Profile) -> float:
    replica = replica_of(prediction.deployment, profile)
    assert replica is not None
    return device_bound(prediction.deployment, replica)


def plan_for(wishes: Wishes, settings: Settings, gpus: int) -> Machine:
    """The machine that is planned for.

    Without a GPU the devices are the CPU's: one, or where replicas are asked for one for each, which only stages with a device
    of their own (`room`) tell apart.
    """
    at_hand = gpus or settings.engine.num_replicas or 1
    devices = wishes.devices or at_hand
    cores = available_cores()
    return Machine(devices if gpus else 0, devices, wishes.cores or cores, free_memory_bytes(), at_hand, cores)
