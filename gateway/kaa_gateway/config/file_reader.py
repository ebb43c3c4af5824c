"""Finding the keys of a YAML document: nested, dotted, or both, as Spring reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kaa_gateway import yaml_tree
from kaa_gateway.config.problems import Problem
from kaa_gateway.config.schema import Path, entry_types, is_section, members
from kaa_gateway.config.values import UnexpectedValue, expected, read, shape

if TYPE_CHECKING:
    from kaa_gateway.config.sources import Sources


class Setting(NamedTuple):
    """A value that a source gives to a key."""

    hint: Any
    value: yaml_tree.Value
    source: str
    line: int | None


class FileReader:
    """Walks a document along the declared keys; this bounds the depth of the walk."""

    def __init__(self, sources: Sources, name: str) -> None:
        self._sources = sources
        self._name = name

    def report(self, line: int | None, path: Path, message: str) -> None:
        """Report something that is wrong in the file."""
        self._sources.problems.append(Problem(".".join(path), line, message, "error", self._name))

    def value(self, hint: Any, path: Path, value: yaml_tree.Value, line: int) -> None:
        """Take what stands behind a key; `line` is that of the key."""
        if is_section(hint) or entry_types(hint) is not None:
            if isinstance(value, yaml_tree.Mapping):
                for entry in value.entries:
                    self._entry(hint, path, entry)
            elif not (isinstance(value, yaml_tree.Scalar) and value.text is None):
                self.report(line, path, f"expected a mapping, got {shape(value)}")
            return
        first = self._sources.add_setting(path, Setting(hint, value, self._name, line))
        if first is not None:
            self.report(line, path, f"the key is here twice, first in line {first.line}")

    def _entry(self, hint: Any, path: Path, entry: yaml_tree.Entry) -> None:
        """Follow a key, which may be dotted, to what it names."""
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
        read(hint, yaml_tree.Scalar(0, text), None)
    except UnexpectedValue:
        return False
    return True


def _split_name(types: tuple[Any, Any], levels: list[str]) -> tuple[str, list[str]]:
    """Split an operator's name, which may have dots itself, from the start of a dotted key."""
    name, entry = types
    for end in range(1, len(levels)):
        if levels[end] in members(entry):
            return ".".join(levels[:end]), levels[end:]
    whole = ".".join(levels)
    return (whole, []) if _is_name(name, whole) else (levels[0], levels[1:])
