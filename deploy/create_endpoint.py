"""From a checkout to an endpoint that answers, and back.

    python deploy/create_endpoint.py             create or update what deploy/settings.toml says; asks before it spends
    python deploy/create_endpoint.py plan        every call that would be made, and the price; changes nothing
    python deploy/create_endpoint.py status      how it is
    python deploy/create_endpoint.py invoke FILE|URL [--output FILE]
    python deploy/create_endpoint.py logs [--follow]
    python deploy/create_endpoint.py rollback    back to the configuration before
    python deploy/create_endpoint.py transform s3://from/ s3://to/
    python deploy/create_endpoint.py policies [--create]
                                                 IAM policies with the least that is needed
    python deploy/create_endpoint.py delete [--everything]
    python deploy/create_endpoint.py --local     the same settings on this machine

Exit codes: 0 done, 2 not allowed or not agreed to, 3 denied or over a quota, 4 no capacity, 5 unhealthy, 6 rolled back,
7 the smoke invocation failed, 8 timed out, 130 interrupted. After each of them `apply` and `delete` can be given again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import boto3

from account import Account, open_session
from account_reading import read_state
from command_line import APPLY, INTERRUPTED, PLAN, parse
from container_image import find_image, reference
from deploy_error import DeployError, Invalid
from deploy_progress import DeployProgress
from deploy_settings import DeploySettings
from deployer_policy import put_deployer_policy
from deployment import Deployment, Proposal
from desired import scope_of, tag_list
from endpoint_log import EndpointLog, is_metrics, plain, read_events
from endpoint_status import status_lines, status_of
from execute import Execution
from plan import Action, Plan
from plan_text import plan_as_data, plan_lines, proposal_as_data
from policies import TRUST, deployer_policy, execution_policy
from preflight import cuda_of_deployment
from rollback import rollback_plan, settings_of
from smoke import content_type_of, invoke
from teardown import read_shared, teardown_plan
from transform import run_transform, served_image, transform_request

_FOLLOW_S = 3.0


class Command:
    """One call of the command line: what was asked for, and the means to do it."""

    def __init__(self, arguments: argparse.Namespace, account: Account, progress: DeployProgress) -> None:
        """Read the settings.

        Raises:
            Invalid: where they are not allowed.
        """
        self._arguments = arguments
        self._account = account
        self._progress = progress
        self._settings = DeploySettings.from_file(arguments.settings)

    def run(self) -> dict[str, Any]:
        """Do it.

        Returns:
            What `--json` prints.
        """
        command = self._arguments.command
        if command == APPLY and self._arguments.dry_run:
            command = PLAN
        result: dict[str, Any] = getattr(self, f"_{command}")()
        return result

    def _plan(self) -> dict[str, Any]:
        proposal = self._deployment().propose()
        self._show(proposal)
        return proposal_as_data(proposal)

    def _apply(self) -> dict[str, Any]:
        proposal = self._deployment().apply(self._agree)
        word = "deployed" if proposal.plan.changes else "no change"
        self._say(f"{word}: endpoint {proposal.plan.endpoint} serves {proposal.plan.config} on {proposal.plan.instance_type}")
        self._say("`create_endpoint.py invoke FILE` asks it; it costs until `create_endpoint.py delete`")
        return {"changed": proposal.plan.changes, **proposal_as_data(proposal)}

    def _status(self) -> dict[str, Any]:
        scope = scope_of(self._settings, self._account.identity())
        status = status_of(read_state(self._account, scope), self._settings.name)
        for line in status_lines(status):
            self._say(line)
        return status

    def _invoke(self) -> dict[str, Any]:
        what, smoke = self._arguments.what[0], self._settings.smoke
        if what.startswith(("http://", "https://")):
            body, content_type = json.dumps({"url": what}).encode(), "application/json"
        else:
            path = Path(what)
            if not path.is_file():
                raise Invalid(f"{what}: there is no such file; allowed is a file, or a URL of http or https")
            body, content_type = _read(path), content_type_of(path, smoke.content_type)
        began = time.monotonic()
        answer = invoke(self._account, self._settings.name, body, content_type, smoke.accept)
        elapsed_ms = (time.monotonic() - began) * 1000
        kind = answer.content_type.partition(";")[0].rpartition("/")[2] or "bin"
        target = self._arguments.output or Path(f"{PurePosixPath(urlsplit(what).path).stem or 'url'}-answer.{kind}")
        try:
            target.write_bytes(answer.body)
        except OSError as error:
            raise Invalid(f"{target}: {error.strerror}: name another file with --output FILE") from error
        self._say(f"{target}: {answer.content_type}, {len(answer.body)} bytes in {elapsed_ms:.0f} ms; {answer.attributes}")
        return {
            "output": str(target),
            "content_type": answer.content_type,
            "ms": round(elapsed_ms),
            "attributes": answer.attributes,
        }

    def _rollback(self) -> dict[str, Any]:
        scope = scope_of(self._settings, self._account.identity())
        state = read_state(self._account, scope)
        smoke = {"EndpointName": self._settings.name, "files": [path.name for path in self._settings.smoke.files]}
        plan = rollback_plan(state, self._settings.name, smoke, self._settings.asynchronous is not None)
        settings = settings_of(self._settings, state, plan.config)
        return self._carry_out(plan, Execution(self._account, self._progress, settings, scope), "rolled back")

    def _delete(self) -> dict[str, Any]:
        scope = scope_of(self._settings, self._account.identity())
        execution = Execution(self._account, self._progress, self._settings, scope)
        state = read_state(self._account, scope)
        everything = self._arguments.everything
        plan = teardown_plan(state, scope, read_shared(self._account, scope, state), everything, self._arguments.logs)
        if not plan.actions:
            self._say(f"nothing of {self._settings.name} is left")
            return plan_as_data(plan)
        return self._carry_out(plan, execution, "deleted")

    def _logs(self) -> dict[str, Any]:
        group = f"/aws/sagemaker/Endpoints/{self._settings.name}"
        since = int((time.time() - self._arguments.minutes * 60) * 1000)
        lines = [event["message"].rstrip() for event in read_events(self._account, group, since)]
        for line in lines:
            if not is_metrics(line):
                self._say(plain(line))
        if not lines:
            self._say(f"nothing in {group} in the last {self._arguments.minutes:g} minutes")
        log = EndpointLog(self._account, self._settings.name)
        while self._arguments.follow:
            self._account.sleep(_FOLLOW_S)
            for line in log.new_lines():
                if not is_metrics(line):
                    self._say(plain(line))
        return {"group": group, "lines": lines}

    def _transform(self) -> dict[str, Any]:
        scope = scope_of(self._settings, self._account.identity())
        state = read_state(self._account, scope)
        source, target = self._arguments.what
        uri = served_image(state)
        image = find_image(self._account, reference(replace(self._settings.image, uri=uri))) if uri else None
        cuda = cuda_of_deployment(self._settings, image)
        request = transform_request(self._settings, state, cuda, source, target, time.strftime("%Y%m%d-%H%M%S"))
        action = Action("sagemaker", "create_transform_job", request, "starts instances that go away when the work is done")
        plan = Plan(self._settings.name, "", request["TransformResources"]["InstanceType"], (action,))
        self._confirm(plan)
        if not self._arguments.dry_run:
            with self._progress.phase(f"transform job {request['TransformJobName']}"):
                place = run_transform(self._account, self._progress, request)
            self._say(f"answers are in {place}")
        return plan_as_data(plan)

    def _policies(self) -> dict[str, Any]:
        scope = scope_of(self._settings, self._account.identity())
        policies = {
            "execution_role_trust": TRUST,
            "execution_role": execution_policy(scope),
            "deployer": deployer_policy(scope),
        }
        self._say(json.dumps(policies, indent=2))
        if self._arguments.create and not self._arguments.dry_run:
            self._ask()
            arn = put_deployer_policy(self._account, scope, tag_list(self._settings))
            self._say(f"{arn} is there: attach it to the one who deploys")
        return policies

    def _deployment(self) -> Deployment:
        return Deployment(self._account, self._progress, self._settings)

    def _carry_out(self, plan: Plan, execution: Execution, done: str) -> dict[str, Any]:
        self._confirm(plan)
        if not self._arguments.dry_run:
            execution.run(plan)
            self._say(f"{done}: {plan.endpoint}" + (f" serves {plan.config}" if plan.config else ""))
        return plan_as_data(plan)

    def _agree(self, proposal: Proposal) -> None:
        self._show(proposal)
        self._ask()

    def _confirm(self, plan: Plan) -> None:
        for line in plan_lines(plan):
            self._say(line)
        if not self._arguments.dry_run:
            self._ask()

    def _ask(self) -> None:
        if self._arguments.yes:
            return
        if self._arguments.json:
            raise Invalid(
                "nothing has been changed: --json shows the plan only at its end, so nobody can be asked; --yes says yes"
            )
        # A process may be started without a standard input at all.
        if sys.stdin is None or not sys.stdin.isatty():
            raise Invalid("nothing has been changed: there is no terminal to ask on; --yes says yes")
        sys.stderr.write("Go on? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Invalid("nothing has been changed: not agreed to")

    def _show(self, proposal: Proposal) -> None:
        for line in (*plan_lines(proposal.plan), *proposal.price.lines(), *(f"note: {text}" for text in proposal.warnings)):
            self._say(line)

    def _say(self, line: str) -> None:
        if not self._arguments.json:
            print(line, flush=True)


def main(
    argv: list[str] | None = None,
    session: boto3.Session | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run a command.

    Args:
        argv: Arguments; None: the process's.
        session: boto3's; None: as the arguments and the environment say.
        sleep: Waits that many seconds.
        clock: Seconds that only grow.

    Returns:
        The exit code.
    """
    arguments = parse(argv, __doc__)
    code, outcome = 0, {}
    try:
        if arguments.local:
            # Imported here: what serves on this machine needs the container's packages, a deployment does not.
            import local_endpoint

            local_endpoint.serve(DeploySettings.from_file(arguments.settings))
            return 0
        session = session or open_session(arguments.profile, arguments.region)
        outcome = Command(arguments, Account(session, sleep, clock), DeployProgress()).run()
    except DeployError as error:
        code, outcome = error.exit_code, {"error": str(error)}
        print(f"create_endpoint: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        code, outcome = 130, {"error": "interrupted"}
        goes_on = "" if arguments.local else INTERRUPTED.get(arguments.command, "")
        print(": ".join(filter(None, ("create_endpoint: interrupted", goes_on))), file=sys.stderr)
    if arguments.json:
        print(json.dumps({"command": arguments.command, "exit_code": code, **outcome}, default=str))
    return code


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
