"""What to do about an endpoint that does not start: a sentence for what SageMaker and the container's log say. Pure."""

from __future__ import annotations

_REMEDIES = (
    (
        ("exec format error",),
        "the image is not for amd64: build it on such a machine, or with docker build --platform linux/amd64",
    ),
    (
        ("driver version is insufficient", "no kernel image", "CUDA driver"),
        "the image's CUDA does not suit the instance's driver or GPUs: set image.cuda to what the image has, or build another",
    ),
    (
        ("out of memory", "OutOfMemoryError"),
        "the models do not fit: fewer replicas (MULTIGPU_NUM_REPLICAS), or GPUs with more memory",
    ),
    (("No space left",), "the disk is full: set instance.volume_gb, or take a type with a larger disk"),
    (("bad settings", "bad_settings"), "a setting of the container is not allowed: correct [environment]"),
    (
        ("start failed", "start_failed"),
        "the container says why it does not start: correct that, and try it here first with --local",
    ),
    (
        ("did not pass the ping health check", "ping"),
        "the container did not answer /ping with 200 in time: look at its log (`create_endpoint.py logs`), try it with "
        "--local, or raise instance.startup_timeout_s if it is only slow",
    ),
    (
        ("ModelData", "model data", "Failed to download", "S3"),
        "the archive could not be read: the role must be allowed to (`create_endpoint.py policies`), in the same region",
    ),
    (
        ("image", "ECR", "manifest"),
        "the image could not be pulled: the role must be allowed to, and its media type must be Docker's",
    ),
    (("role", "AssumeRole", "assume"), "SageMaker cannot use the role: it must trust sagemaker.amazonaws.com"),
    (("alarm", "Alarm"), "an alarm went off during the update: look at it in CloudWatch, then at the log"),
    (("capacity", "Capacity"), "name other types in instance.fallback, or try again later or in another region"),
)
_OTHERWISE = "look at the log with `create_endpoint.py logs`, and try the same with --local"


def remedy(reason: str, log_line: str | None) -> str:
    """What to do.

    Args:
        reason: SageMaker's `FailureReason`; may be empty.
        log_line: The line of the container's log that says why; None: there is none.
    """
    for said in (log_line or "", reason):
        for words, sentence in _REMEDIES:
            if any(word in said for word in words):
                return sentence
    return _OTHERWISE
