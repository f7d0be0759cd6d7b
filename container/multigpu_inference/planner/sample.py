"""The request that everything is measured with: the script's own `sample_input()`, or a file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from multigpu_inference.errors import SettingsError
from multigpu_inference.messages import STOCK_ACCEPT, Invocation, ScriptInfo

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A request.

    Attributes:
        body: Its bytes.
        content_type: Of the body.
        accept: What is asked for.
        source: Where it comes from, in words.
    """

    body: bytes
    content_type: str
    accept: str
    source: str

    def invocation(self, request_id: str = "plan", timeout_s: float = _DAY_S) -> Invocation:
        """The request as a front-end worker would hand it over now; by default with all the time in the world."""
        now = time.monotonic()
        return Invocation(request_id, self.content_type, self.accept, {}, now, now + timeout_s)


def choose_sample(script: ScriptInfo, body: Path | None, content_type: str | None, accept: str | None) -> Sample:
    """A request whose input does not come from elsewhere, which would say nothing of this machine.

    Args: as `find_sample`.

    Raises:
        SettingsError: where there is none.
    """
    chosen = find_sample(script, body, content_type, accept)
    if script.fetches(chosen.content_type, {}):
        raise SettingsError(
            f"a request of type {chosen.content_type} goes through fetch_fn, which says nothing of this machine: "
            "measure with --body FILE --content-type TYPE of another type (FETCH_TYPES says which do)"
        )
    return chosen


def find_sample(script: ScriptInfo, body: Path | None, content_type: str | None, accept: str | None) -> Sample:
    """A file's bytes where one is given, else the script's sample.

    Args:
        script: What the probe found.
        body: A file with a request's body.
        content_type: Of that body.
        accept: What is asked for; None: what the script or the stock toolkit makes for a client that accepts anything.

    Raises:
        SettingsError: where there is neither, or the file cannot be read.
    """
    wanted = accept or script.default_accept or STOCK_ACCEPT
    if body is not None:
        if content_type is None:
            raise SettingsError(f"--body {body} needs its --content-type, such as image/jpeg")
        try:
            return Sample(body.read_bytes(), content_type, wanted, str(body))
        except OSError as error:
            raise SettingsError(f"--body {body} cannot be read: {error.strerror}") from None
    if script.sample is None:
        raise SettingsError("the script has no sample_input(): say --body FILE --content-type TYPE, a request to try")
    return Sample(script.sample[0], content_type or script.sample[1], wanted, "sample_input()")
