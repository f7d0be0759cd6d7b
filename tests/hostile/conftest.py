"""The containers of the tests of hostile input: those of `tests/integration`."""

from integration.conftest import _sigint_is_not_ignored, endpoint, kind, new_endpoint

__all__ = ["_sigint_is_not_ignored", "endpoint", "kind", "new_endpoint"]
