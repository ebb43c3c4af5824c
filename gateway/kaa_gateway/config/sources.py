"""The sources of the configuration, service-config.yml and the environment, combined key by key.

What lives here: the environment variables that override the file, and a problem for everything that fits no key. What
does not: finding keys in a document (`kaa_gateway.config.file_reader`), the keys themselves, and what several keys must
agree on (`kaa_gateway.config.cross_checks`).
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from kaa_gateway import yaml_tree
from kaa_gateway.config.file_reader import FileReader, Setting
from kaa_gateway.config.keys import Document
from kaa_gateway.config.problems import Problem, Severity
from kaa_gateway.config.schema import Key, Path, keys, variable_of
from kaa_gateway.config.values import UnexpectedValue, read

UNKNOWN_KEYS_VARIABLE = "KAA_KPC_UNKNOWN_KEYS"
"""Environment variable that says what an unknown key in the file is: `error` (default) or `warn`."""

PATH_VARIABLE = "APP_CONFIG_PATH"
"""Environment variable: the path of the configuration file."""

OWN_PREFIXES = ("KAA_KPC_", "KAA_APPLICATIONS_", "KAA_TENANTS_", "KAA_EXTENSION_INSTANCES_")
"""A variable that begins like this and sets nothing is probably misspelt."""

SIMILARITY = 0.6
"""How close a key must be to a misspelt one to be preferred over keys of other sections (difflib's ratio)."""

_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")
_LINK_NAME = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""Kubernetes sets variables like these for each service of a namespace, such as one called `kaa-kpc`."""


class Sources:
    """Collects settings and problems. Call in this order: `add_file`, `add_environment`, `document`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._unknown_keys: Severity = "error"
        self._settings: dict[Path, Setting] = {}
        self._entries: dict[Path, dict[str, tuple[str, int]]] = {}

    def report(self, path: Path, message: str, severity: Severity = "error") -> None:
        """Add a problem with the value of a key, or with an entry. Its source and line are found here."""
        source: str
        line: int | None
        source, line = self._entries.get(path[:-1], {}).get(path[-1], ("", None))
        if path in self._settings:
            _, _, source, line = self._settings[path]
        self.problems.append(Problem(".".join(path), line, message, severity, source))

    # The file

    def add_file(self, name: str, text: str, environ: Mapping[str, str]) -> None:
        """Take the settings of a YAML document, which messages call `name`."""
        choice = environ.get(UNKNOWN_KEYS_VARIABLE, "error")
        if choice not in ("error", "warn"):
            message = f'expected error or warn, got "{choice}"'
            self.problems.append(Problem("", None, message, "error", UNKNOWN_KEYS_VARIABLE))
        self._unknown_keys = "warning" if choice == "warn" else "error"
        reader = FileReader(self, name)
        document = yaml_tree.parse(text, reader.report)
        if document is not None:
            reader.value(Document, (), document, document.line)

    def unknown_key(self, name: str, line: int, path: Path, siblings: list[str], rest: str) -> None:
        """Add a problem for an unknown key of the file."""
        full = ".".join((*path, rest) if rest else path)
        close = get_close_matches(path[-1], siblings, n=1, cutoff=SIMILARITY)
        if close:
            nearest = ".".join((*path[:-1], close[0]))
        else:
            # Most likely a key that stands in another section.
            known = list(self._known_paths())
            elsewhere = [each for each in known if path[-1] in each.split(".")]
            nearest = get_close_matches(full, elsewhere or known, n=1, cutoff=0.0)[0]
        message = f'unknown key; did you mean "{nearest}"?'
        self.problems.append(Problem(full, line, message, self._unknown_keys, name))

    def add_entry(self, path: Path, name: str, source: str, line: int) -> None:
        """Add an entry of a mapping whose keys are the operator's names; it may be there already."""
        self._entries.setdefault(path, {}).setdefault(name, (source, line))

    def add_setting(self, path: Path, setting: Setting) -> Setting | None:
        """Set a key. If it is set already, the first setting stays and is returned."""
        first = self._settings.setdefault(path, setting)
        return None if first is setting else first

    def has(self, path: Path) -> bool:
        """Return whether a source sets the key."""
        return path in self._settings

    def paths(self) -> Iterator[Path]:
        """Yield the paths of the keys that a source sets."""
        return iter(self._settings)

    def _keys(self) -> Iterator[Key]:
        return keys(Document, lambda path: self._entries.get(path, ()))

    def _known_paths(self) -> Iterator[str]:
        """Return the full paths of all keys and of the sections that hold them."""
        seen = {path[:depth] for path, _, _ in self._keys() for depth in range(1, len(path) + 1)}
        return (".".join(path) for path in sorted(seen))

    # The environment

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Take the variables that name a key; they override the file."""
        variables: dict[str, list[Key]] = {}
        regular: dict[str, str] = {}
        for key in self._keys():
            variables.setdefault(key.variable, []).append(key)
            regular[variable_of(key.path)] = key.variable
        for name in sorted(environ):
            if name in variables:
                self._add_variable(name, environ[name], variables[name])
            elif name.startswith(OWN_PREFIXES) and not _is_foreign(name, environ[name]):
                nearest = get_close_matches(name, list(regular), n=1, cutoff=0.0)[0]
                message = f"sets no key; did you mean {regular[nearest]}?"
                self.problems.append(Problem("", None, message, "warning", name))

    def _add_variable(self, name: str, text: str, named: list[Key]) -> None:
        if _LINK_VALUE.match(text):
            # Kubernetes sets SERVER_PORT like this where a service of the namespace is called `server`.
            message = "ignored, because its value is that of a Kubernetes service link"
            self.problems.append(Problem(".".join(named[0].path), None, message, "warning", name))
        elif len(named) > 1:
            paths = ", ".join(".".join(key.path) for key in named)
            self.problems.append(Problem("", None, f"names more than one key: {paths}", "error", name))
        else:
            key = named[0]
            self._settings[key.path] = Setting(key.hint, yaml_tree.Scalar(0, text), name, None)

    # Both

    def document(self) -> Document:
        """Return the typed configuration. A key without a usable value has its default, and a problem says so."""
        tree: dict[str, Any] = {}
        for path, names in self._entries.items():
            for name in names:
                _mapping_at(tree, (*path, name))
        for path, setting in self._settings.items():
            if isinstance(setting.value, yaml_tree.Scalar) and setting.value.text is None:
                continue
            try:
                value = read(setting.hint, setting.value, setting.line)
            except UnexpectedValue as error:
                self.problems.append(Problem(".".join(path), error.line, str(error), "error", setting.source))
            else:
                _mapping_at(tree, path[:-1])[path[-1]] = value
        return msgspec.convert(tree, Document)


def _is_foreign(name: str, text: str) -> bool:
    """Return whether a variable only looks like ours: Kubernetes sets it, or it is not about a key."""
    return (
        name == UNKNOWN_KEYS_VARIABLE
        or _LINK_VALUE.match(text) is not None
        or _LINK_NAME.fullmatch(name) is not None
    )


def _mapping_at(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    for name in path:
        tree = tree.setdefault(name, {})
    return tree
