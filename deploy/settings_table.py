"""Reads one table of `settings.toml`, and says what is allowed where a key or a value is not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy_error import Invalid


class SettingsTable:
    """A table of which every key is asked for by name; what was never asked for is unknown."""

    def __init__(self, values: Mapping[str, Any], name: str, root: Path) -> None:
        """Nothing is read yet.

        Args:
            values: What TOML gives.
            name: Of the table, for messages; empty: the top.
            root: Relative paths are relative to it.
        """
        self.root = root
        self._values = values
        self._name = name
        self._asked: set[str] = set()

    def table(self, key: str) -> SettingsTable:
        """A table in this one; empty where there is none."""
        return SettingsTable(self._take(key, {}, dict, "a table"), self._path(key), self.root)

    def text(self, key: str, default: str) -> str:
        """A string, without blanks around it."""
        value: str = self._take(key, default, str, "a text")
        return value.strip()

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of several strings."""
        value = self.text(key, default)
        if value not in allowed:
            raise Invalid(f"{self._path(key)}={value!r}: allowed are {', '.join(allowed)}")
        return value

    def switch(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self._take(key, default, bool, "true or false"))

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.optional_integer(key, low, high)
        return default if value is None else value

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        """The same, None where it is not given."""
        self._asked.add(key)
        if key not in self._values:
            return None
        value = self._values[key]
        if type(value) is not int or not low <= value <= high:
            raise Invalid(f"{self._path(key)}={value!r}: allowed is a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        self._asked.add(key)
        value = self._values.get(key, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise Invalid(f"{self._path(key)}={value!r}: allowed is a number from {low:g} to {high:g}")
        return float(value)

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of strings."""
        values = self._take(key, list(default), list, "a list of texts")
        if not all(isinstance(value, str) for value in values):
            raise Invalid(f"{self._path(key)}={values!r}: allowed is a list of texts")
        return tuple(values)

    def places(self, key: str) -> tuple[str, ...]:
        """A list of places in S3."""
        places = self.texts(key, ())
        for place in places:
            if not place.startswith("s3://") or not place.removeprefix("s3://").partition("/")[0]:
                raise Invalid(f"{self._path(key)}={place!r}: allowed are places such as s3://bucket/prefix/")
        return places

    def texts_by_name(self, key: str) -> Mapping[str, str]:
        """A table of strings."""
        values = self._take(key, {}, dict, "a table of texts")
        for name, value in values.items():
            if not isinstance(value, str):
                raise Invalid(f"{self._path(key)}.{name}={value!r}: allowed is a text, in quotes")
        return MappingProxyType(dict(values))

    def path(self, key: str, default: str) -> Path:
        """A path, relative to the root."""
        return self.root / self.text(key, default)

    def files(self, key: str, default: tuple[str, ...]) -> tuple[Path, ...]:
        """Files by name or pattern, relative to the root; each pattern must name one at least."""
        found: list[Path] = []
        for pattern in self.texts(key, default):
            # A pattern that is absolute is one below the file system's own root.
            base, relative = (Path("/"), pattern.lstrip("/")) if pattern.startswith("/") else (self.root, pattern)
            matches = sorted(path for path in base.glob(relative) if path.is_file()) if relative else []
            if not matches:
                raise Invalid(f"{self._path(key)}: there is no file {pattern} in {base}")
            found.extend(matches)
        return tuple(dict.fromkeys(found))

    def refuse_unknown(self) -> None:
        """Refuse a key that nothing has asked for: a misspelt one would be ignored without a word."""
        for key in self._values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, sorted(self._asked), n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(self._asked))}"
                raise Invalid(f"{self._path(key)} is not a setting; {hint}")

    def _take(self, key: str, default: Any, kind: type, allowed: str) -> Any:
        self._asked.add(key)
        value = self._values.get(key, default)
        if not isinstance(value, kind):
            raise Invalid(f"{self._path(key)}={value!r}: allowed is {allowed}")
        return value

    def _path(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key
