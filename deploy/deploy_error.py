"""What can go wrong with a deployment: each class with the exit code that a script can act on.

An error's text is one line that says what to do. AWS's own errors are translated where they arise (`account.py`).
"""

from __future__ import annotations


class DeployError(Exception):
    """The root of all errors that are shown to the user without a trace.

    Attributes:
        exit_code: What `create_endpoint.py` ends with.
    """

    exit_code = 1


class Invalid(DeployError):
    """A setting, an argument, the archive or the image cannot be deployed, or nobody has said yes."""

    exit_code = 2


class Denied(DeployError):
    """AWS refuses: credentials, permissions or a quota."""

    exit_code = 3


class NoCapacity(DeployError):
    """AWS has no instance of any of the types asked for."""

    exit_code = 4


class Unhealthy(DeployError):
    """The endpoint was made and does not serve."""

    exit_code = 5


class RolledBack(DeployError):
    """An update failed; the endpoint serves what it served before."""

    exit_code = 6


class SmokeFailed(DeployError):
    """The endpoint is in service, and does not answer as it should."""

    exit_code = 7


class TimedOut(DeployError):
    """Something took longer than it may, or AWS cannot be reached."""

    exit_code = 8
