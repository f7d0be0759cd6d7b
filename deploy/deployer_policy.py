"""Makes the IAM policy of the one who deploys, for an administrator to attach.

It is no part of the deployment: `delete` leaves it, since the one who deletes works with it.
"""

from __future__ import annotations

import json

from account import Account, tags_of
from deploy_error import Invalid
from desired import TAG
from policies import Scope, deployer_policy

# IAM keeps no more.
_MOST_VERSIONS = 5


def put_deployer_policy(account: Account, scope: Scope, tags: list[dict[str, str]]) -> str:
    """Make the policy, or bring it up to date.

    Args:
        account: To change.
        scope: Names.
        tags: Put on it.

    Returns:
        Its ARN.

    Raises:
        Invalid: where a policy of that name is somebody else's.
    """
    name = f"{scope.name}-deployer"
    arn = scope.arn("iam", f"policy/{name}", region=False)
    document = deployer_policy(scope)
    found = account.find("iam", "get_policy", PolicyArn=arn)
    if found is None:
        account.call("iam", "create_policy", PolicyName=name, PolicyDocument=json.dumps(document), Tags=tags)
        return arn
    if tags_of(found["Policy"].get("Tags", ())).get(TAG) != scope.name:
        raise Invalid(f"policy {name} is there and has not been made for {scope.name}: choose another name")
    version = account.call("iam", "get_policy_version", PolicyArn=arn, VersionId=found["Policy"]["DefaultVersionId"])
    if version["PolicyVersion"]["Document"] != document:
        versions = list(account.listed("iam", "list_policy_versions", "Versions", PolicyArn=arn))
        if len(versions) >= _MOST_VERSIONS:
            oldest = min((entry for entry in versions if not entry["IsDefaultVersion"]), key=lambda entry: entry["CreateDate"])
            account.call("iam", "delete_policy_version", PolicyArn=arn, VersionId=oldest["VersionId"])
        account.call("iam", "create_policy_version", PolicyArn=arn, PolicyDocument=json.dumps(document), SetAsDefault=True)
    return arn
