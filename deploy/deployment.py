"""One deployment: what it is made of is gathered, compared, shown, agreed to and carried out.

settings.toml ─► archive, image ─► desired ─┐
                     the account ─► state ──┴─► plan ─► preflight ─► yes? ─► execution ─► smoke
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from account import Account, Identity
from account_reading import read_state
from account_state import DELETING, IN_SERVICE, MOVING, AccountState
from container_image import ContainerImage, find_image, reference
from deploy_error import Denied, Invalid, NoCapacity
from deploy_progress import DeployProgress
from deploy_settings import CODEBUILD, DOCKER, DeploySettings
from desired import UNKNOWN_DIGEST, Desired, Facts, desire, scope_of
from execute import Execution
from model_archive import ModelArchive, prepare_archive
from plan import ImageSource, Plan, make_plan
from policies import Scope
from preflight import (
    Finding,
    check_account,
    check_environment,
    check_image,
    check_instance,
    check_quota,
    check_requests,
    check_role,
    check_update,
    cuda_of_deployment,
    expected_replicas,
    refuse,
)
from price import Price, estimate, find_prices
from quota import find_quotas
from repository import image_source, local_image_id


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan as it is shown before anybody says yes.

    Attributes:
        plan: What would be done.
        price: What it costs.
        warnings: What might go wrong, and what else there is to know.
    """

    plan: Plan
    price: Price
    warnings: tuple[str, ...]


class Deployment:
    """Deploys what the settings say."""

    def __init__(self, account: Account, progress: DeployProgress, settings: DeploySettings) -> None:
        """Nothing is read yet.

        Args:
            account: To deploy in.
            progress: Is told.
            settings: What to deploy.
        """
        self._account = account
        self._progress = progress
        self._settings = settings

    def propose(self) -> Proposal:
        """Work out the plan for the first instance type, or for the one that serves already; nothing is changed.

        Raises:
            DeployError: where it could not be carried out.
        """
        gathered = self._gather()
        return self._propose(gathered, self._types(gathered)[0])

    def apply(self, agree: Callable[[Proposal], None]) -> Proposal:
        """Carry it out.

        Args:
            agree: Is shown the first proposal that changes anything; raises where it is not to be carried out.

        Returns:
            The proposal that was carried out last.

        Raises:
            NoCapacity: where AWS has none of the types.
            DeployError: of any other class.
        """
        agreed = False

        def ask(proposal: Proposal) -> None:
            nonlocal agreed
            if proposal.plan.changes and not agreed:
                agree(proposal)
                agreed = True

        gathered = self._gather()
        proposal = self._propose(gathered, self._types(gathered)[0])
        ask(proposal)
        execution = Execution(self._account, self._progress, self._settings, gathered.scope)
        if self._is_elsewhere(gathered):
            execution.settle()
            gathered = self._read_again(gathered)
        if gathered.source is not None:
            execution.run(self._propose(gathered, self._types(gathered)[0]).plan, lambda action: action.prepares)
            gathered = self._read_again(gathered, image_is_there=True)
        lacking, types = "", self._types(gathered)
        for index, instance_type in enumerate(types):
            try:
                proposal = self._propose(gathered, instance_type)
                ask(proposal)
                execution.run(proposal.plan)
                return proposal
            except NoCapacity as error:
                lacking = str(error)
            except Denied as error:
                # A quota for the first type is the user's to raise; one for a fallback leaves the next.
                if index == 0:
                    raise
                lacking = str(error)
            self._progress.say(f"not on {instance_type}: {lacking}")
            gathered = self._read_again(gathered)
        raise NoCapacity(f"no capacity for {', '.join(types)}: {lacking}")

    def _gather(self) -> _Gathered:
        with self._progress.phase("archive"):
            archive = prepare_archive(self._settings)
        with self._progress.phase("account"):
            identity = self._account.identity()
            scope = scope_of(self._settings, identity)
            image = find_image(self._account, reference(self._settings.image))
            source = self._source(image)
            state = read_state(self._account, scope)
            types = self._rented_types()
            prices, whose = find_prices(self._account, identity.region, types)
            quotas = find_quotas(self._account, types)
        return _Gathered(identity, scope, archive, image, source, state, prices, whose, quotas)

    def _read_again(self, before: _Gathered, image_is_there: bool = False) -> _Gathered:
        image = find_image(self._account, reference(self._settings.image)) if image_is_there else before.image
        if image_is_there and image is None:
            raise Invalid(
                f"there is no image {self._settings.image.repository}:{self._settings.image.tag} after the push or build of it"
            )
        source = None if image_is_there else before.source
        state = read_state(self._account, before.scope)
        return replace(before, image=image, source=source, state=state)

    def _source(self, image: ContainerImage | None) -> ImageSource | None:
        image_settings = self._settings.image
        if image_settings.source == DOCKER:
            local = local_image_id(image_settings)
            if local is None:
                raise Invalid(
                    f"image.local={image_settings.local!r}: there is no such image on this machine: `make image` builds it"
                )
            return None if image and local in image.ids else image_source(image_settings)
        if image_settings.source == CODEBUILD:
            return None if image else image_source(image_settings)
        if image is None:
            where = image_settings.uri or f"{image_settings.repository}:{image_settings.tag}"
            raise Invalid(
                f"there is no image {where} in ECR: build it (`make image`) and set image.source to docker or codebuild"
            )
        return None

    def _facts(self, gathered: _Gathered) -> Facts:
        known = gathered.image is not None and gathered.source is None
        image = gathered.image.uri if known and gathered.image else f"{self._settings.image.repository}@{UNKNOWN_DIGEST}"
        # An image that is about to be replaced says nothing of the new one.
        cuda = cuda_of_deployment(self._settings, gathered.image if known else None)
        return Facts(gathered.identity, gathered.archive.digest, image, cuda)

    def _types(self, gathered: _Gathered) -> tuple[str, ...]:
        """The types to try: where one of these very settings serves, or is being made, those before it have been tried."""
        endpoint = gathered.state.endpoint
        if endpoint is not None and endpoint.status in (IN_SERVICE, *MOVING):
            facts = self._facts(gathered)
            for index, instance_type in enumerate(self._settings.instance.types):
                if desire(self._settings, facts, instance_type).config_name == endpoint.wanted:
                    return self._settings.instance.types[index:]
        return self._settings.instance.types

    def _is_elsewhere(self, gathered: _Gathered) -> bool:
        endpoint = gathered.state.endpoint
        if endpoint is None or endpoint.status not in MOVING:
            return False
        return endpoint.status == DELETING or endpoint.wanted not in self._wanted_configs(gathered)

    def _wanted_configs(self, gathered: _Gathered) -> set[str]:
        facts = self._facts(gathered)
        return {desire(self._settings, facts, instance_type).config_name for instance_type in self._settings.instance.types}

    def _propose(self, gathered: _Gathered, instance_type: str) -> Proposal:
        facts = self._facts(gathered)
        desired = desire(self._settings, facts, instance_type)
        warnings = refuse(self._findings(gathered, facts, desired, instance_type))
        replicas = expected_replicas(self._settings, instance_type)
        smoke: dict[str, Any] = {
            "EndpointName": desired.name,
            "files": [path.name for path in self._settings.smoke.files],
            "until": f"{'all' if replicas is None else replicas} replicas have answered",
        }
        archive, asynchronous = str(gathered.archive.path), self._settings.asynchronous is not None
        plan = make_plan(desired, gathered.state, archive, gathered.source, smoke, asynchronous)
        price = estimate(self._settings, instance_type, gathered.prices, gathered.whose_prices)
        return Proposal(plan, price, (*warnings, *self._fallback_notes(gathered, instance_type)))

    def _findings(self, gathered: _Gathered, facts: Facts, desired: Desired, instance_type: str) -> list[Finding]:
        settings, updating = self._settings, gathered.state.endpoint is not None
        findings = [*check_update(settings), *check_account(settings, desired, gathered.state, gathered.identity.region)]
        # The fallback types too: a mistake in one of them is not to be found when it is needed.
        for name in settings.instance.types:
            findings.extend(check_requests(desire(settings, facts, name)))
            findings.extend(check_environment(settings, gathered.archive, name))
        for name in self._rented_types():
            findings.extend(check_instance(settings, name, facts.cuda))
        if gathered.image is not None and gathered.source is None:
            findings.extend(check_image(gathered.image, settings))
        if settings.role:
            try:
                found = self._account.find("iam", "get_role", RoleName=gathered.scope.role)
                findings.extend(check_role(found["Role"] if found else None, settings.role))
            except Denied:
                findings.append(Finding(f"role={settings.role!r} may not be looked at: its trust is not checked", None))
        findings.extend(check_quota(settings, instance_type, gathered.quotas.get(instance_type), updating))
        if self._is_elsewhere(gathered) and gathered.state.endpoint:
            findings.append(Finding(f"the endpoint is {gathered.state.endpoint.status}: that is waited for first", None))
        return findings

    def _rented_types(self) -> tuple[str, ...]:
        shadow = self._settings.shadow.type if self._settings.shadow else ""
        return tuple(dict.fromkeys((*self._settings.instance.types, *([shadow] if shadow else []))))

    def _fallback_notes(self, gathered: _Gathered, instance_type: str) -> tuple[str, ...]:
        later = self._settings.instance.types[self._settings.instance.types.index(instance_type) + 1 :]
        notes = []
        for other in later:
            price = estimate(self._settings, other, gathered.prices, gathered.whose_prices).hour
            notes.append(f"where there is no capacity: {other}" + (f", {price:.2f} USD an hour" if price is not None else ""))
        return tuple(notes)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What a deployment is made of, and what there is already; `source` is None where the image is in the repository."""

    identity: Identity
    scope: Scope
    archive: ModelArchive
    image: ContainerImage | None
    source: ImageSource | None
    state: AccountState
    prices: Mapping[str, float]
    whose_prices: str
    quotas: Mapping[str, float]
