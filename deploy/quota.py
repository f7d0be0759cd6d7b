"""How many instances of a type the account may have, asked of Service Quotas."""

from __future__ import annotations

from collections.abc import Iterable

from account import Account
from deploy_error import DeployError


def find_quotas(account: Account, types: Iterable[str]) -> dict[str, float]:
    """The quotas for endpoints on each of some types; without those that cannot be found out."""
    wanted = {f"{name} for endpoint usage": name for name in types}
    found: dict[str, float] = {}
    try:
        # SageMaker has thousands of quotas, which can only be had page by page.
        for quota in account.listed("service-quotas", "list_service_quotas", "Quotas", ServiceCode="sagemaker"):
            if quota["QuotaName"] in wanted:
                found[wanted[quota["QuotaName"]]] = float(quota["Value"])
            if len(found) == len(wanted):
                break
    except DeployError:
        return found
    return found
