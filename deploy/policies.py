"""IAM policies with the least that is needed: for the container's execution role, and for the one who deploys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from account import Identity

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}

# Of a role and a bucket that are made here, and taken away again.
_MAKE_ROLE = [
    f"iam:{verb}" for verb in ("GetRolePolicy", "CreateRole", "TagRole", "PutRolePolicy", "DeleteRolePolicy", "DeleteRole")
]
_MAKE_BUCKET = [f"s3:{verb}" for verb in ("CreateBucket", "DeleteBucket", "PutBucketTagging", "PutBucketPublicAccessBlock")]


@dataclass(frozen=True, slots=True)
class Scope:
    """What the policies are about.

    Attributes:
        identity: Account, region, partition.
        name: The deployment's.
        role: Name of the execution role.
        role_arn: Its ARN where the settings name it; empty: it is made here.
        bucket: Of the archives.
        own_bucket: Whether it is made here.
        prefix: Of the deployment's objects in it.
        repository: Name of the ECR repository; empty: an image elsewhere.
        read: S3 places that it may read besides its own prefix, as `bucket/prefix`.
        written: S3 places that the container's answers and captured requests go to, as `bucket/prefix`.
        topics: SNS topics that asynchronous answers are told to.
        vpc: Whether the container stands in a VPC.
        kms_key: ARN or id of a key; empty: none.
    """

    identity: Identity
    name: str
    role: str
    bucket: str
    prefix: str
    repository: str
    read: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    vpc: bool = False
    kms_key: str = ""
    role_arn: str = ""
    own_bucket: bool = True

    @property
    def own_role(self) -> bool:
        """Whether the role is made here."""
        return not self.role_arn

    def arn(self, service: str, resource: str, region: bool = True, account: bool = True) -> str:
        """An ARN of this account and region."""
        here = self.identity.region if region else ""
        return f"arn:{self.identity.partition}:{service}:{here}:{self.identity.account_id if account else ''}:{resource}"

    def s3(self, path: str) -> str:
        """The ARN of a bucket or an object."""
        return self.arn("s3", path, region=False, account=False)


def execution_policy(scope: Scope) -> dict[str, Any]:
    """What the container may do: pull its image, read its archive, write its log and metrics."""
    partition = scope.identity.partition
    logs = scope.arn("logs", f"log-group:/aws/sagemaker/*{scope.name}*")
    jobs = scope.arn("logs", "log-group:/aws/sagemaker/TransformJobs*")
    statements = [
        _allow(["s3:GetObject"], [scope.s3(f"{place}*") for place in (f"{scope.bucket}/{scope.prefix}", *scope.read)]),
        # Batch transform lists what it is to read.
        *(
            _allow(["s3:ListBucket"], [scope.s3(bucket)], {"StringLike": {"s3:prefix": f"{prefix}*"}})
            for bucket, _, prefix in (place.partition("/") for place in (f"{scope.bucket}/{scope.prefix}", *scope.read))
        ),
        _allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"], [logs, jobs]),
        _allow(
            ["cloudwatch:PutMetricData"],
            ["*"],
            {"StringEquals": {"cloudwatch:namespace": ["MultiGPU/Inference", "/aws/sagemaker/Endpoints"]}},
        ),
        _allow(["ecr:GetAuthorizationToken"], ["*"]),
        _allow(
            ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            # An image that the settings name may lie in another account.
            [
                scope.arn("ecr", f"repository/{scope.repository}")
                if scope.repository
                else f"arn:{partition}:ecr:*:*:repository/*"
            ],
        ),
    ]
    if scope.written:
        places = [scope.s3(f"{place}*") for place in scope.written]
        statements.append(_allow(["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"], places))
    if scope.topics:
        statements.append(_allow(["sns:Publish"], list(scope.topics)))
    if scope.vpc:
        statements.append(
            _allow(
                [
                    "ec2:CreateNetworkInterface",
                    "ec2:CreateNetworkInterfacePermission",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DeleteNetworkInterfacePermission",
                    "ec2:DescribeDhcpOptions",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSecurityGroups",
                    "ec2:DescribeSubnets",
                    "ec2:DescribeVpcs",
                ],
                ["*"],
            )
        )
    if scope.kms_key:
        statements.append(_allow(["kms:Decrypt", "kms:GenerateDataKey", "kms:CreateGrant", "kms:DescribeKey"], [_key(scope)]))
    return {"Version": "2012-10-17", "Statement": statements}


def deployer_policy(scope: Scope) -> dict[str, Any]:
    """What the one who runs `create_endpoint.py` must be allowed, `delete --everything` included."""
    named = [scope.arn("sagemaker", path.lower()) for path in _paths(scope.name)]
    role = scope.role_arn or scope.arn("iam", f"role/{scope.role}", region=False)
    repository = scope.arn("ecr", f"repository/{scope.repository or '*'}")
    group = scope.arn("logs", f"log-group:/aws/sagemaker/Endpoints/{scope.name}")
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow(
                [
                    *(
                        f"sagemaker:{verb}{kind}"
                        for verb in ("Create", "Describe", "Delete")
                        for kind in ("Endpoint", "EndpointConfig", "Model")
                    ),
                    "sagemaker:UpdateEndpoint",
                    "sagemaker:UpdateEndpointWeightsAndCapacities",
                    "sagemaker:InvokeEndpoint",
                    "sagemaker:InvokeEndpointAsync",
                    "sagemaker:AddTags",
                    "sagemaker:ListTags",
                ],
                named,
            ),
            _allow(
                ["sagemaker:CreateTransformJob", "sagemaker:DescribeTransformJob", "sagemaker:StopTransformJob"],
                [scope.arn("sagemaker", f"transform-job/{scope.name}*".lower())],
            ),
            # Whether a configuration or a model is in use by somebody else can only be found out by looking at all of them.
            _allow(
                [
                    "sagemaker:ListEndpoints",
                    "sagemaker:ListEndpointConfigs",
                    "sagemaker:ListModels",
                    "sagemaker:DescribeEndpoint",
                    "sagemaker:DescribeEndpointConfig",
                ],
                ["*"],
            ),
            _allow(["iam:PassRole"], [role], {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}),
            _allow(["iam:GetRole", *(_MAKE_ROLE if scope.own_role else [])], [role]),
            _allow(
                [
                    "s3:ListBucket",
                    "s3:GetBucketLocation",
                    "s3:GetBucketTagging",
                    "s3:GetBucketPublicAccessBlock",
                    *(_MAKE_BUCKET if scope.own_bucket else []),
                ],
                [scope.s3(scope.bucket)],
            ),
            _allow(
                [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:PutObjectTagging",
                    "s3:GetObjectTagging",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                ],
                [scope.s3(f"{scope.bucket}/{scope.prefix}*")],
            ),
            _allow(["ecr:GetAuthorizationToken"], ["*"]),
            _allow(
                [
                    "ecr:CreateRepository",
                    "ecr:DescribeRepositories",
                    "ecr:DeleteRepository",
                    "ecr:TagResource",
                    "ecr:ListTagsForResource",
                    "ecr:GetLifecyclePolicy",
                    "ecr:PutLifecyclePolicy",
                    "ecr:ListImages",
                    "ecr:BatchGetImage",
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:GetDownloadUrlForLayer",
                    "ecr:InitiateLayerUpload",
                    "ecr:UploadLayerPart",
                    "ecr:CompleteLayerUpload",
                    "ecr:PutImage",
                ],
                [repository],
            ),
            _allow(["codebuild:StartBuild", "codebuild:BatchGetBuilds"], [scope.arn("codebuild", "project/*")]),
            _allow(
                [
                    "application-autoscaling:RegisterScalableTarget",
                    "application-autoscaling:DeregisterScalableTarget",
                    "application-autoscaling:DescribeScalableTargets",
                    "application-autoscaling:PutScalingPolicy",
                    "application-autoscaling:DeleteScalingPolicy",
                    "application-autoscaling:DescribeScalingPolicies",
                ],
                ["*"],
            ),
            _allow(
                ["iam:CreateServiceLinkedRole"],
                ["*"],
                {"StringEquals": {"iam:AWSServiceName": "sagemaker.application-autoscaling.amazonaws.com"}},
            ),
            _allow(
                [
                    "cloudwatch:PutMetricAlarm",
                    "cloudwatch:DeleteAlarms",
                    "cloudwatch:TagResource",
                    "cloudwatch:ListTagsForResource",
                ],
                # The second: those that autoscaling makes for itself, in the caller's name.
                [
                    scope.arn("cloudwatch", f"alarm:{scope.name}/*"),
                    scope.arn("cloudwatch", f"alarm:TargetTracking-endpoint/{scope.name}/*"),
                ],
            ),
            _allow(["cloudwatch:DescribeAlarms"], ["*"]),
            _allow(["logs:FilterLogEvents", "logs:DeleteLogGroup"], [group, f"{group}:*"]),
            _allow(["logs:DescribeLogGroups"], ["*"]),
            _allow(["servicequotas:ListServiceQuotas", "pricing:GetProducts", "sts:GetCallerIdentity"], ["*"]),
        ],
    }


def _allow(actions: list[str], resources: list[str], condition: dict[str, Any] | None = None) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | {"Condition": condition} if condition else statement


def _paths(name: str) -> tuple[str, ...]:
    return f"endpoint/{name}", f"endpoint-config/{name}-c-*", f"model/{name}-m-*"


def _key(scope: Scope) -> str:
    return scope.kms_key if scope.kms_key.startswith("arn:") else scope.arn("kms", f"key/{scope.kms_key}")
