"""What a script's function is told beside its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from multigpu_inference.messages import Invocation


class Headers(Mapping[str, str]):
    """A request's headers, found by any spelling of their names."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Keep headers whose names are in lower case."""
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        """The header of that name."""
        return self._headers[name.lower()]

    def __iter__(self) -> Iterator[str]:
        """Names, in lower case."""
        return iter(self._headers)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._headers)


@dataclass(frozen=True)
class RequestProcessor:
    """The toolkit's way to a request's headers: `context.request_processor[0].get_request_properties()`."""

    headers: Mapping[str, str]

    def get_request_properties(self) -> Mapping[str, str]:
        """All headers."""
        return self.headers

    def get_request_property(self, key: str) -> str | None:
        """One header, or None."""
        return self.headers.get(key.lower())


@dataclass(frozen=True)
class Context:
    """What a function is told beside its arguments; the names are those of the stock toolkit's context.

    Attributes:
        devices: `model_fn` and `predict_fn`: this replica's devices, one per stage, such as `("cuda:0", "cuda:1")`.
            Empty in a pool worker.
        replica_id: This replica's number, from 0; None in a pool worker.
        num_replicas: How many replicas there are.
        system_properties: `model_dir`, and `gpu_id`: the first GPU of this process, None where there is none.
        request_id: Of the request being served; "" while loading.
        headers: Of the request being served, found by any spelling of their names.
        form: Where the request came as a form: the text fields beside its body.
        seconds_left: For how long somebody still waits for the answer: until the request's deadline, and 0.0 once that has
            passed or its client has gone. Any thread may ask. Infinite where nobody knows.
    """

    devices: tuple[str, ...] = ()
    replica_id: int | None = None
    num_replicas: int = 1
    system_properties: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    seconds_left: Callable[[], float] = lambda: math.inf

    def of_request(self, invocation: Invocation, seconds_left: Callable[[], float]) -> Context:
        """The same for one request."""
        of_process = (self.devices, self.replica_id, self.num_replicas, self.system_properties)
        return Context(*of_process, invocation.request_id, Headers(invocation.headers), invocation.form, seconds_left)

    @property
    def request_processor(self) -> tuple[RequestProcessor, ...]:
        """The toolkit's: one for each request of a batch, here always one."""
        return (RequestProcessor(self.headers),)

    def get_request_id(self, idx: int = 0) -> str:
        """The request's id."""
        return self.request_id

    def get_request_header(self, idx: int, key: str) -> str | None:
        """A header of the request, or None; `idx` is the toolkit's place in a batch, here always 0."""
        return self.headers.get(key.lower())

    def get_all_request_header(self, idx: int) -> Mapping[str, str]:
        """All headers of the request, found by any spelling of their names."""
        return self.headers
