"""Which configurations, models and archives of a deployment are of no more use: pure, but for the deletion itself.

A configuration that failed stays for inspection, until newer ones push it out.
"""

from __future__ import annotations

from account import Account
from account_reading import configs_in_use, models_of_others, read_state
from account_state import AccountState, ConfigState
from desired import FOLLOWS
from policies import Scope

# Configurations that are kept for going back and for looking at.
KEPT = 3


def obsolete_configs(state: AccountState, desired: str) -> tuple[ConfigState, ...]:
    """The configurations that may go.

    Args:
        state: What there is.
        desired: The configuration that is to be served, whether or not it is there already.

    Returns:
        All but the served and the desired one, those that a rollback would go to, and the last `KEPT`.
    """
    endpoint = state.endpoint
    served = {desired} | ({endpoint.config, endpoint.wanted} if endpoint else set())
    before = {config.tags[FOLLOWS] for config in state.configs if config.name in served and FOLLOWS in config.tags}
    known = {config.name for config in state.configs}
    newest = KEPT if desired in known else KEPT - 1
    recent = {config.name for config in state.configs[-newest:]}
    return tuple(config for config in state.configs if config.name not in served | before | recent)


def delete_old_versions(account: Account, scope: Scope, desired: str) -> tuple[str, ...]:
    """Delete what may go: configurations first, then the models and the archives that only they used.

    Whatever any endpoint or any other configuration of the account uses stays, whoever made that.

    Returns:
        The names of what was deleted.
    """
    state = read_state(account, scope)
    obsolete = {config.name for config in obsolete_configs(state, desired)}
    if not obsolete:
        return ()
    obsolete -= configs_in_use(account)
    for name in sorted(obsolete):
        account.call("sagemaker", "delete_endpoint_config", EndpointConfigName=name)
    kept = tuple(config for config in state.configs if config.name not in obsolete)
    return (*sorted(obsolete), *delete_unused(account, scope, state, kept))


def delete_unused(account: Account, scope: Scope, state: AccountState, kept: tuple[ConfigState, ...]) -> tuple[str, ...]:
    """Delete the models that no configuration names, then the archives that no model has.

    Args:
        account: To change.
        scope: Names.
        state: What there was before configurations were deleted.
        kept: The deployment's configurations that are left.
    """
    deleted = []
    used = {model for config in kept for model in config.models}
    used |= models_of_others(account, scope.name, frozenset(config.name for config in state.configs))
    for model in state.models:
        if model.name not in used:
            account.call("sagemaker", "delete_model", ModelName=model.name)
            deleted.append(model.name)
    archives = {model.archive for model in state.models if model.name in used}
    for key in sorted(state.archives):
        if f"s3://{scope.bucket}/{key}" not in archives:
            account.call("s3", "delete_object", Bucket=scope.bucket, Key=key)
            deleted.append(key)
    return tuple(deleted)
