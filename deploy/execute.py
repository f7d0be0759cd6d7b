"""Carries a plan out, one action after another.

What is there already is left as it is, so that a run that was cut short can be followed by another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlencode

from account import Account, is_already_there, is_not_found
from account_reading import bucket_owner
from deploy_error import DeployError, Invalid
from deploy_progress import DeployProgress
from deploy_settings import DeploySettings
from desired import TAG
from model_archive import digest_of
from old_versions import delete_old_versions
from plan import CLEAN, CODEBUILD_RUN, DOCKER_PUSH, SMOKE, SMOKE_ASYNC, TAG_IMAGE, UPLOAD, WAIT, WAIT_GONE, Action, Plan
from policies import Scope
from preflight import expected_replicas
from repository import build, push, tag_image
from smoke import smoke, smoke_async
from update_policy import update_limit_s
from waiter import EndpointWaiter

# A role that was just made is not known everywhere for a while.
_ROLE_LIMIT_S = 90.0
_ROLE_POLL_S = 5.0
# What create_model says meanwhile: of the role, and of what its policy allows.
_YOUNG_ROLE = ("assume", "could not access model data", "does not grant", "does not have", "not authorized to perform: ecr")


class Execution:
    """Carries out plans of one deployment."""

    def __init__(self, account: Account, progress: DeployProgress, settings: DeploySettings, scope: Scope) -> None:
        """Nothing is done yet.

        Args:
            account: To change.
            progress: Is told.
            settings: Of the deployment.
            scope: Its names.
        """
        self._account = account
        self._progress = progress
        self._settings = settings
        self._scope = scope
        self._waiter = EndpointWaiter(account, progress, settings.name)
        self._doers: dict[tuple[str, str], Callable[[Plan, Mapping[str, Any]], object]] = {
            UPLOAD: self._upload,
            TAG_IMAGE: lambda _, request: tag_image(account, request),
            DOCKER_PUSH: lambda _, request: push(account, request),
            CODEBUILD_RUN: lambda _, request: build(account, progress, request),
            ("s3", "create_bucket"): self._create_bucket,
            ("sagemaker", "create_model"): self._create_model,
            ("sagemaker", "delete_endpoint"): self._delete_endpoint,
            ("sagemaker", "tag_config"): self._tag_config,
            WAIT: self._wait,
            WAIT_GONE: lambda _, request: self._waiter.until_gone(self.wait_limit_s),
            SMOKE: self._smoke,
            SMOKE_ASYNC: self._smoke_async,
            CLEAN: self._clean,
        }

    @property
    def wait_limit_s(self) -> float:
        """How long the endpoint may take."""
        # Beyond what SageMaker itself allows an update, so that its own word for it is heard.
        return float(self._settings.update.wait_limit_s or update_limit_s(self._settings) + 1800)

    def run(self, plan: Plan, only: Callable[[Action], bool] = lambda _: True) -> None:
        """Do what a plan says.

        Args:
            plan: What to do.
            only: Which of its actions.

        Raises:
            DeployError: at the first action that cannot be done.
        """
        for action in plan.actions:
            if only(action):
                with self._progress.phase(f"{action.service} {action.operation.replace('_', ' ')}"):
                    self._do(plan, action)

    def settle(self) -> None:
        """Wait until the endpoint is on its way nowhere."""
        with self._progress.phase("waiting for what is under way already"):
            self._waiter.until_settled(self.wait_limit_s)

    def _do(self, plan: Plan, action: Action) -> None:
        if action.kind in self._doers:
            self._doers[action.kind](plan, action.request)
            return
        try:
            self._account.call(action.service, action.operation, **action.request)
        except DeployError as error:
            # Done by a run that was killed before it was told, or by another one at the same time.
            made = action.operation.startswith("create_") and is_already_there(error.__cause__)
            gone = action.operation.startswith(("delete_", "deregister_")) and is_not_found(error.__cause__)
            if not made and not gone:
                raise

    def _upload(self, plan: Plan, request: Mapping[str, Any]) -> None:
        path, key = Path(request["Filename"]), PurePosixPath(request["Key"])
        try:
            # The key says what the file holds, and the file may have been another one since the plan was shown.
            if not digest_of(path).startswith(key.parent.name):
                raise Invalid(f"{path} has been changed since the plan was made: run the command again")
            more = {"Tagging": urlencode({TAG: plan.endpoint})} | bucket_owner(self._scope)
            self._account.call("s3", "upload_file", **request, ExtraArgs=more)
        except OSError as error:
            raise Invalid(f"{path}: {error.strerror}: run the command again") from error

    def _create_bucket(self, _: Plan, request: Mapping[str, Any]) -> None:
        region = self._scope.identity.region
        # S3's first region is the one that may not be named.
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._account.call("s3", "create_bucket", **request, **place)
        except DeployError as error:
            if not is_already_there(error.__cause__):
                raise

    def _create_model(self, _: Plan, request: Mapping[str, Any]) -> None:
        began = self._account.clock()
        while True:
            try:
                self._account.call("sagemaker", "create_model", **request)
                return
            except DeployError as error:
                if is_already_there(error.__cause__):
                    return
                said = str(error).lower()
                young = self._scope.own_role and any(words in said for words in _YOUNG_ROLE)
                if not young or self._account.clock() - began >= _ROLE_LIMIT_S:
                    raise
            self._progress.state("waiting until the role is known everywhere")
            self._account.sleep(_ROLE_POLL_S)

    def _delete_endpoint(self, _: Plan, request: Mapping[str, Any]) -> None:
        try:
            self._account.call("sagemaker", "delete_endpoint", **request)
        except Invalid as error:
            if is_not_found(error.__cause__):
                return
            # SageMaker lets nobody delete an endpoint that is being made or changed.
            state = self._waiter.until_settled(self.wait_limit_s)
            if state is not None:
                self._account.call("sagemaker", "delete_endpoint", **request)

    def _tag_config(self, _: Plan, request: Mapping[str, Any]) -> None:
        config = self._account.call("sagemaker", "describe_endpoint_config", EndpointConfigName=request["config"])
        self._account.call("sagemaker", "add_tags", ResourceArn=config["EndpointConfigArn"], Tags=request["Tags"])

    def _wait(self, _: Plan, request: Mapping[str, Any]) -> None:
        self._waiter.until_serving(request["EndpointConfigName"], self.wait_limit_s)

    def _smoke(self, plan: Plan, _: Mapping[str, Any]) -> None:
        replicas = expected_replicas(self._settings, plan.instance_type)
        instances = self._settings.instance.count
        result = smoke(self._account, self._progress, plan.endpoint, self._settings.smoke, replicas, instances)
        self._progress.say(f"{result.requests} real requests answered, by {len(result.replicas)} replicas")

    def _smoke_async(self, plan: Plan, _: Mapping[str, Any]) -> None:
        folder = f"s3://{self._scope.bucket}/{self._scope.prefix}requests/"
        smoke_async(self._account, self._progress, plan.endpoint, self._settings.smoke, folder)

    def _clean(self, plan: Plan, _: Mapping[str, Any]) -> None:
        deleted = delete_old_versions(self._account, self._scope, plan.config)
        self._progress.say(f"deleted: {', '.join(deleted) or 'nothing, all of it is in use'}")
