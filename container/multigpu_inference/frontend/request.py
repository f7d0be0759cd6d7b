"""What a front end makes of an HTTP request, whichever it is: an invocation, and of a form its body and its text fields."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from multigpu_inference.errors import BadRequest, UnsupportedMediaType
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import Invocation

# How long after a request's deadline the engine's own 504 is still waited for.
ENGINE_GRACE_S = 1.0
_BODY = "body"
_NO_FIELDS: Mapping[str, str] = {}
_FORM = "multipart/form-data"
_UNNAMED = "application/octet-stream"  # of a file whose type nobody has named
# They go with the request wherever it goes; what is longer is a body.
_LONGEST_FIELDS = 16 << 10


class FormPart(NamedTuple):
    """A part of a form.

    Attributes:
        name: As the client named it.
        content_type: As the part names it; "" where it names none.
        body: Its bytes.
        is_file: Whether it is a file's contents, and not a text field.
    """

    name: str
    content_type: str
    body: Buffer
    is_file: bool

    @property
    def is_empty(self) -> bool:
        """Whether it has no bytes, as the file that nobody has chosen in a browser's form."""
        return memoryview(self.body).nbytes == 0


class Form(NamedTuple):
    """What a form is for a script: a body with its type, and the text fields beside it."""

    content_type: str
    body: Buffer
    fields: Mapping[str, str]


def make_invocation(
    request_id: str,
    content_type: str,
    headers: Mapping[str, str],
    arrived: float,
    request_timeout_s: float,
    fields: Mapping[str, str] = _NO_FIELDS,
) -> Invocation:
    """A request as the engine takes it.

    Args:
        request_id: Made by the front end.
        content_type: Of the body, which in a form is the part's.
        headers: The request's, names in lower case.
        arrived: When it came, in monotonic seconds.
        request_timeout_s: From then to its deadline.
        fields: Of a form: its text fields.
    """
    deadline = arrived + request_timeout_s
    return Invocation(request_id, content_type, headers.get("accept", ""), headers, arrived, deadline, fields)


def refuse_url_encoded(content_type: str) -> None:
    """Refuse what curl sends where nobody names a type: a binary body in it has been taken for a form's text."""
    if content_type.lower().startswith("application/x-www-form-urlencoded"):
        raise UnsupportedMediaType("a body cannot be sent as a URL-encoded form; name its own type in Content-Type")


def is_file_type(content_type: str) -> bool:
    """Whether a part of this type is a file's contents: a text field has none, or that of plain text."""
    return content_type.partition(";")[0].strip().lower() not in ("", "text/plain")


def of_form(parts: Sequence[FormPart]) -> Form:
    """What a form is for a script.

    Its body is the part named `body`, or the only file, or the only part; the text fields beside it are kept as such. A form of
    several text fields and no file has no body: it is its fields, of type `multipart/form-data`. A single text is both.

    Raises:
        BadRequest: where the form leaves open which part is its body, or what a field is.
    """
    chosen = [part for part in parts if not (part.is_file and part.is_empty)] or parts  # a file that nobody chose
    texts, files = [part for part in chosen if not part.is_file], [part for part in chosen if part.is_file]
    named = [part for part in chosen if part.name == _BODY]
    candidates = named or files or (chosen if len(chosen) == 1 else [])
    if named and files and named[0] in texts:
        candidates = [*named, *files]
    if len(candidates) > 1 or not parts:
        raise BadRequest(f"a form must have one file, or one part named body; this one has {len(candidates)}")
    body = candidates[0] if candidates else FormPart("", _FORM, b"", is_file=False)
    fields = _fields([part for part in texts if part is not body])
    if body in texts and not named:
        with contextlib.suppress(BadRequest):  # then it is a body only
            fields = _fields([body])
    content_type = body.content_type or (_UNNAMED if body.is_file else "")
    return Form(content_type, body.body, fields)


def _fields(parts: Sequence[FormPart]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in parts:
        name = part.name[:40]
        if part.name in fields:
            raise BadRequest(f"the form has the field {name!r} more than once")
        try:
            fields[part.name] = bytes(part.body).decode()
        except UnicodeDecodeError:
            raise BadRequest(f"the form's field {name!r} is not UTF-8: send it as a file") from None
    if sum(map(len, fields.values())) > _LONGEST_FIELDS:
        raise BadRequest(f"the form's text fields are longer than {_LONGEST_FIELDS} characters together: send a file")
    return fields
