"""Batch transform of a prefix: bulk work on machines that come for it and go afterwards, with the deployment's model."""

from __future__ import annotations

from typing import Any

from account import Account
from account_state import AccountState
from deploy_error import Invalid, NoCapacity, TimedOut, Unhealthy
from deploy_progress import DeployProgress
from deploy_settings import DeploySettings
from desired import container_environment, tag_list
from gpu_driver import CPU_BUILD, transform_ami_version
from instance_types import has_gpu
from service_model import violations

_POLL_S = 30.0
_LIMIT_S = 24 * 3600.0
_ENDED = ("Completed", "Failed", "Stopped")


def transform_request(
    settings: DeploySettings, state: AccountState, cuda: str, source: str, target: str, stamp: str
) -> dict[str, Any]:
    """The request of `create_transform_job`. Pure.

    Args:
        settings: The table `[transform]`.
        state: The model is that of the served configuration.
        cuda: Of the model's image.
        source: Where the requests lie: s3://bucket/prefix/.
        target: Where the answers go, likewise.
        stamp: Makes the job's name its own.

    Raises:
        Invalid: without an endpoint, without a driver for the image's CUDA, or where AWS would refuse the request.
    """
    config = state.config(state.endpoint.config) if state.endpoint else None
    if config is None:
        raise Invalid(f"there is no endpoint {settings.name} whose model could be used: deploy it first")
    for place in (source, target):
        if not place.startswith("s3://"):
            raise Invalid(f"{place!r}: allowed is s3://bucket/prefix/")
    transform = settings.transform
    instance_type = transform.type or config.instance_type
    resources: dict[str, Any] = {"InstanceType": instance_type, "InstanceCount": transform.count}
    # The model was made for the endpoint's type, which may have GPUs where this one has none.
    devices = container_environment(settings, instance_type)["MULTIGPU_DEVICES"]
    if has_gpu(instance_type) and devices != CPU_BUILD:
        resources["TransformAmiVersion"] = transform_ami_version(cuda)
    request = {
        "TransformJobName": f"{settings.name}-{stamp}",
        "ModelName": config.models[0],
        "MaxConcurrentTransforms": transform.max_concurrent,
        "MaxPayloadInMB": transform.max_payload_mb,
        "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": transform.content_type,
            "SplitType": "None",
        },
        "TransformOutput": {"S3OutputPath": target, "Accept": transform.accept, "AssembleWith": "None"},
        "TransformResources": resources,
        "Environment": {"MULTIGPU_DEVICES": devices},
        "Tags": tag_list(settings),
    }
    wrong = violations("sagemaker", "create_transform_job", request)
    if wrong:
        raise Invalid("; ".join(wrong))
    return request


def served_image(state: AccountState) -> str:
    """The image of the served model, by digest; empty: there is none."""
    config = state.config(state.endpoint.config) if state.endpoint else None
    name = config.models[0] if config else ""
    model = next((model for model in state.models if model.name == name), None)
    return str(model.request.get("PrimaryContainer", {}).get("Image", "")) if model else ""


def run_transform(account: Account, progress: DeployProgress, request: dict[str, Any]) -> str:
    """Start the job and wait for its end.

    Returns:
        Where the answers are.

    Raises:
        NoCapacity, Unhealthy, TimedOut: as it ends.
    """
    account.call("sagemaker", "create_transform_job", **request)
    name, began = request["TransformJobName"], account.clock()
    while account.clock() - began < _LIMIT_S:
        try:
            job = account.call("sagemaker", "describe_transform_job", TransformJobName=name)
        except TimedOut as error:
            # The job goes on, and costs, whether or not anybody looks.
            progress.state(str(error))
            account.sleep(_POLL_S)
            continue
        progress.state(f"transform job {name} {job['TransformJobStatus']}")
        if job["TransformJobStatus"] in _ENDED:
            break
        account.sleep(_POLL_S)
    else:
        raise TimedOut(f"transform job {name} has taken more than {_LIMIT_S / 3600:.0f} hours: see SageMaker")
    reason = job.get("FailureReason", "no reason given")
    if "apacity" in reason:
        raise NoCapacity(f"transform job {name}: {reason}: name another type in transform.type")
    if job["TransformJobStatus"] != "Completed":
        raise Unhealthy(
            f"transform job {name} {job['TransformJobStatus'].lower()}: {reason}: its log is /aws/sagemaker/TransformJobs"
        )
    return str(request["TransformOutput"]["S3OutputPath"])
