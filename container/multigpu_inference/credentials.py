"""Which processes know the container's AWS credentials: those that read from elsewhere for the script, and nobody else.

Of the processes that run the user's code only the fetch worker has them, unless `MULTIGPU_AWS_CREDENTIALS=1` gives them to all.
The engine has them too, to hand them on, and runs none of that code. What strangers send is decoded where there are none.
"""

from __future__ import annotations

from collections.abc import Mapping

from multigpu_inference import process
from multigpu_inference.errors import StartupError

FOR_ALL = "MULTIGPU_AWS_CREDENTIALS"

# What of AWS's variables is no way to credentials. The rule is by what stays, so that one that is not known here goes.
_HARMLESS = frozenset(
    {
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_DEFAULT_OUTPUT", "AWS_EXECUTION_ENV", "AWS_CA_BUNDLE", "AWS_PARTITION"),
        *("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_DEFAULTS_MODE", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_SDK_UA_APP_ID"),
        *("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
        *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION", "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS"),
    }
)
_HARMLESS_BEGINNINGS = ("AWS_ENDPOINT_URL", "AWS_NEURON")
# Ways to credentials that need no variable: the home folder's files, and an instance's own role.
_NOWHERE = {
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_NOT_FOUND = ("NoCredentialsError", "CredentialRetrievalError", "ProfileNotFound")


def withheld(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without AWS credentials, nor a way to any; as it is where all processes are to have them."""
    if environ.get(FOR_ALL, "").strip() == "1":
        return dict(environ)
    return {name: value for name, value in environ.items() if not _leads_to_credentials(name)} | _NOWHERE


def guard(environ: Mapping[str, str]) -> None:
    """Where this process has credentials, keep other processes of its user from reading them in its memory."""
    if any(_leads_to_credentials(name) and value != _NOWHERE.get(name) for name, value in environ.items()):
        process.shut_off()


def hint(error: BaseException, environ: Mapping[str, str]) -> str:
    """What to say behind an error of user code that found no credentials because they are withheld; else nothing."""
    seen: BaseException | None = error
    for _ in range(10):  # an error may be its own cause's context
        if seen is None or environ.get(FOR_ALL, "").strip() == "1":
            return ""
        # A start's failure has the hint of what caused it in its text.
        if type(seen).__name__ in _NOT_FOUND and not isinstance(error, StartupError):
            return f" (only fetch_fn and store_fn have AWS credentials; {FOR_ALL}=1 gives them to all functions)"
        seen = seen.__cause__ or seen.__context__
    return ""


def _leads_to_credentials(name: str) -> bool:
    if not name.startswith(("AWS_", "BOTO_")):
        return False
    return name not in _HARMLESS and not name.startswith(_HARMLESS_BEGINNINGS)
