"""What a deployment needs around it: the execution role, and the repository of its image, as requests. Pure."""

from __future__ import annotations

import json
from typing import Any

from policies import TRUST, Scope, execution_policy

# Spares what is deployed: an image that the first rule matches is not touched by the one after it.
DEPLOYED_TAG = "deployed-"
_LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "Images that were deployed stay",
            "selection": {
                "tagStatus": "tagged",
                "tagPrefixList": [DEPLOYED_TAG],
                "countType": "imageCountMoreThan",
                "countNumber": 1000,
            },
            "action": {"type": "expire"},
        },
        {
            "rulePriority": 2,
            "description": "Of all others the last 20",
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 20},
            "action": {"type": "expire"},
        },
    ]
}


def deployed_tag(name: str, digest: str) -> str:
    """What an image is tagged with that a deployment uses or has used, by its digest (`sha256:…`)."""
    return f"{DEPLOYED_TAG}{name}-{digest.removeprefix('sha256:')[:12]}"


def role_request(scope: Scope, tags: list[dict[str, str]]) -> dict[str, Any]:
    """`create_role` of the execution role."""
    return {
        "RoleName": scope.role,
        "AssumeRolePolicyDocument": json.dumps(TRUST),
        "Description": f"Execution role of the SageMaker endpoint {scope.name}",
        "Tags": tags,
    }


def role_policy_request(scope: Scope) -> dict[str, Any]:
    """`put_role_policy` for it."""
    return {"RoleName": scope.role, "PolicyName": "endpoint", "PolicyDocument": json.dumps(execution_policy(scope))}


def repository_request(name: str, tags: list[dict[str, str]]) -> dict[str, Any]:
    """`create_repository`."""
    return {"repositoryName": name, "imageScanningConfiguration": {"scanOnPush": True}, "tags": tags}


def lifecycle_request(name: str) -> dict[str, Any]:
    """`put_lifecycle_policy` for it."""
    return {"repositoryName": name, "lifecyclePolicyText": json.dumps(_LIFECYCLE)}
