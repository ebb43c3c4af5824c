"""Where the configuration comes from: service-config.yml and the environment, brought together key by key.

What lives here: finding each key of `kaa_gateway.config.keys` in a document (nested, dotted, or both, as Spring
reads them), the environment variables that win over it, and a problem for everything that fits no key. What
does not: the keys themselves, and what several keys must agree on (`kaa_gateway.config`).
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from kaa_gateway.config import document as config_yaml
from kaa_gateway.config.keys import Document
from kaa_gateway.config.schema import Key, Path, entry_types, is_section, keys, members, variable_of
from kaa_gateway.config.values import UnexpectedValue, expected, read, shape

UNKNOWN_KEYS_VARIABLE = "KAA_KPC_UNKNOWN_KEYS"
"""Environment variable: `error` (default) or `warn`, what an unknown key in the file is."""

PATH_VARIABLE = "APP_CONFIG_PATH"
"""Environment variable: the path of the configuration file."""

OWN_PREFIXES = ("KAA_KPC_", "KAA_APPLICATIONS_", "KAA_EXTENSION_INSTANCES_")
"""A variable that begins like this and sets nothing is probably misspelt."""

SIMILARITY = 0.6
"""How close a key must be to a misspelt one to be preferred over keys of other sections (difflib's ratio)."""

_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")
_LINK_NAME = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""Kubernetes sets variables like these for each service of a namespace, such as one called `kaa-kpc`."""

Severity: TypeAlias = Literal["error", "warning"]


class Problem(NamedTuple):
    """Something wrong in the configuration; `str()` of it is one line for the operator, without secrets."""

    path: str
    """Full path of the key, or empty if the problem is none of one key."""
    line: int | None
    message: str
    severity: Severity
    source: str
    """The file or the environment variable where it is wrong; empty for a default."""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        # A variable names its key itself.
        path = self.path if self.line or not self.source else ""
        return config_yaml.one_line(place, path, self.message)


class Setting(NamedTuple):
    """A value that a source gives to a key."""

    hint: Any
    value: config_yaml.Value
    source: str
    line: int | None


class Sources:
    """What file and environment say, and what is wrong; call in order: file, environment, document."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._unknown_keys: Severity = "error"
        self._settings: dict[Path, Setting] = {}
        self._entries: dict[Path, dict[str, tuple[str, int]]] = {}

    def report(self, path: Path, message: str, severity: Severity = "error") -> None:
        """A problem with the value that a key has, or with an entry, wherever that came from."""
        source: str
        line: int | None
        source, line = self._entries.get(path[:-1], {}).get(path[-1], ("", None))
        if path in self._settings:
            _, _, source, line = self._settings[path]
        self.problems.append(Problem(".".join(path), line, message, severity, source))

    # The file

    def add_file(self, name: str, text: str, environ: Mapping[str, str]) -> None:
        """Takes the settings of a YAML document, which messages call `name`."""
        choice = environ.get(UNKNOWN_KEYS_VARIABLE, "error")
        if choice not in ("error", "warn"):
            message = f'expected error or warn, got "{choice}"'
            self.problems.append(Problem("", None, message, "error", UNKNOWN_KEYS_VARIABLE))
        self._unknown_keys = "warning" if choice == "warn" else "error"
        reader = _FileReader(self, name)
        document = config_yaml.parse(text, reader.report)
        if document is not None:
            reader.value(Document, (), document, document.line)

    def unknown_key(self, name: str, line: int, path: Path, siblings: list[str], rest: str) -> None:
        """A key of the file that is none of ours."""
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
        """A mapping whose keys are the operator's names has this entry, perhaps not for the first time."""
        self._entries.setdefault(path, {}).setdefault(name, (source, line))

    def add_setting(self, path: Path, setting: Setting) -> Setting | None:
        """Sets a key; returns what had set it before, which then stays."""
        first = self._settings.setdefault(path, setting)
        return None if first is setting else first

    def has(self, path: Path) -> bool:
        """Whether a source sets the key."""
        return path in self._settings

    def _keys(self) -> Iterator[Key]:
        return keys(Document, lambda path: self._entries.get(path, ()))

    def _known_paths(self) -> Iterator[str]:
        """Full paths of all keys and of the sections that hold them."""
        seen = {path[:depth] for path, _, _ in self._keys() for depth in range(1, len(path) + 1)}
        return (".".join(path) for path in sorted(seen))

    # The environment

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Takes the variables that name a key, in place of what the file says."""
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
            self._settings[key.path] = Setting(key.hint, config_yaml.Scalar(0, text), name, None)

    # Both

    def document(self) -> Document:
        """The typed configuration; a key without a usable value has its default, and a problem says so."""
        tree: dict[str, Any] = {}
        for path, names in self._entries.items():
            for name in names:
                _mapping_at(tree, (*path, name))
        for path, setting in self._settings.items():
            if isinstance(setting.value, config_yaml.Scalar) and setting.value.text is None:
                continue
            try:
                value = read(setting.hint, setting.value, setting.line)
            except UnexpectedValue as error:
                self.problems.append(Problem(".".join(path), error.line, str(error), "error", setting.source))
            else:
                _mapping_at(tree, path[:-1])[path[-1]] = value
        return msgspec.convert(tree, Document)


def _is_foreign(name: str, text: str) -> bool:
    """Whether a variable that looks like ours is not: Kubernetes sets it, or it is not about a key."""
    return (
        name == UNKNOWN_KEYS_VARIABLE
        or _LINK_VALUE.match(text) is not None
        or _LINK_NAME.fullmatch(name) is not None
    )


def _mapping_at(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    for name in path:
        tree = tree.setdefault(name, {})
    return tree


class _FileReader:
    """Walks a document along the declared keys, which bounds its depth whatever the document is."""

    def __init__(self, sources: Sources, name: str) -> None:
        self._sources = sources
        self._name = name

    def report(self, line: int | None, path: Path, message: str) -> None:
        self._sources.problems.append(Problem(".".join(path), line, message, "error", self._name))

    def value(self, hint: Any, path: Path, value: config_yaml.Value, line: int) -> None:
        """Takes what stands behind a key; `line` is that of the key."""
        if is_section(hint) or entry_types(hint) is not None:
            if isinstance(value, config_yaml.Mapping):
                for entry in value.entries:
                    self._entry(hint, path, entry)
            elif not (isinstance(value, config_yaml.Scalar) and value.text is None):
                self.report(line, path, f"expected a mapping, got {shape(value)}")
            return
        first = self._sources.add_setting(path, Setting(hint, value, self._name, line))
        if first is not None:
            self.report(line, path, f"the key is here twice, first in line {first.line}")

    def _entry(self, hint: Any, path: Path, entry: config_yaml.Entry) -> None:
        """Follows a key, which may be dotted, to what it names."""
        levels = entry.key.split(".")
        while levels:
            types = entry_types(hint)
            if types is not None:
                name, levels = _split_name(types, levels)
                if not _is_name(types[0], name):
                    self.report(entry.line, (*path, name), f"expected {expected(types[0])} as the name")
                    return
                self._sources.add_entry(path, name, self._name, entry.line)
                hint, path = types[1], (*path, name)
                continue
            known = members(hint) if is_section(hint) else {}
            if levels[0] not in known:
                rest = ".".join(levels[1:])
                self._sources.unknown_key(self._name, entry.line, (*path, levels[0]), list(known), rest)
                return
            hint, path, levels = known[levels[0]], (*path, levels[0]), levels[1:]
        self.value(hint, path, entry.value, entry.line)


def _is_name(hint: Any, text: str) -> bool:
    try:
        read(hint, config_yaml.Scalar(0, text), None)
    except UnexpectedValue:
        return False
    return True


def _split_name(types: tuple[Any, Any], levels: list[str]) -> tuple[str, list[str]]:
    """Where an operator's name, which may have dots itself, ends in a dotted key."""
    name, entry = types
    for end in range(1, len(levels)):
        if levels[end] in members(entry):
            return ".".join(levels[:end]), levels[end:]
    whole = ".".join(levels)
    return (whole, []) if _is_name(name, whole) else (levels[0], levels[1:])
