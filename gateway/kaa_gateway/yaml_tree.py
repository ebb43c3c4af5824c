"""YAML as text with line numbers.

What lives here: reading a YAML document into a small tree whose every key and value knows its line, and
whose scalars stay the text that the operator wrote. No tag constructs anything, so there is nothing unsafe
to load; aliases and merge keys are expanded within a budget. What does not: what a key means
(`kaa_gateway.config.file_reader`, `kaa_gateway.identity.static_file`).
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import yaml

MAX_NODES = 250_000
"""Keys and values that a document may have after its aliases are expanded: stops alias bombs."""

MAX_DEPTH = 32
"""Levels of nesting that a document may have: stops aliases that contain themselves."""

TOO_LARGE = "too large or nested too deeply, once aliases are expanded"

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "timestamp", "value")}


class Scalar(NamedTuple):
    """A value as written, without its quotes; `text` is None for YAML's null."""

    line: int
    text: str | None


class Sequence(NamedTuple):
    """A list."""

    line: int
    items: "list[Value]"


class Entry(NamedTuple):
    """One key of a mapping, with the line of the key."""

    key: str
    line: int
    value: "Value"


class Mapping(NamedTuple):
    """A mapping, its entries in the order of the document; no key is there twice."""

    line: int
    entries: list[Entry]


Value: TypeAlias = Scalar | Sequence | Mapping
Report: TypeAlias = Callable[[int | None, tuple[str, ...], str], None]
"""Called with a problem: its line, the keys that lead there, and a sentence without values of the document."""


def parse(text: str, report: Report) -> Value | None:
    """Return the document in `text`, or None if there is none. Problems go to `report`, and are left out."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if root is None else _Reader(report).value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        report(
            mark.line + 1 if mark else None,
            (),
            f"not YAML: {', '.join(filter(None, (error.context, error.problem)))}",
        )
    except yaml.YAMLError as error:
        report(None, (), f"not YAML: {str(error).splitlines()[0]}")
    except _TooLargeError as error:
        report(error.line, (), TOO_LARGE)
    except RecursionError:
        report(None, (), TOO_LARGE)
    return None


def one_line(*parts: str) -> str:
    """Return a message of one line from the parts that are not empty; keys may contain line breaks."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", "?", ": ".join(filter(None, parts)))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _TooLargeError(Exception):
    """The document exceeds `MAX_NODES` or `MAX_DEPTH` in this line."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Reader:
    """Turns composed nodes into the tree above, spending one unit of the budget a node."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._budget = MAX_NODES

    def value(self, node: yaml.Node, path: tuple[str, ...]) -> Value | None:
        line = _line(node)
        self._budget -= 1
        if self._budget < 0 or len(path) > MAX_DEPTH:
            raise _TooLargeError(line)
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS:
            return Scalar(line, None if node.tag == _TAG + "null" else node.value)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = (self.value(item, (*path, str(index))) for index, item in enumerate(node.value))
            return Sequence(line, [item for item in items if item is not None])
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Mapping(line, list(self._entries(node, path)))
        self._report(line, path, "this YAML tag is not supported")
        return None

    def _entries(self, mapping: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[Entry]:
        """Yield the mapping's own entries, then those of `<<` that it does not have itself."""
        lines: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key, node in mapping.value:
            if key.tag == _TAG + "merge":
                merged.extend(node.value if isinstance(node, yaml.SequenceNode) else [node])
            elif not isinstance(key, yaml.ScalarNode):
                self._report(_line(key), path, "expected a plain key")
            elif key.value in lines:
                self._report(
                    _line(key), (*path, key.value), f"the key is here twice, first in line {lines[key.value]}"
                )
            else:
                lines[key.value] = _line(key)
                value = self.value(node, (*path, key.value))
                if value is not None:
                    yield Entry(key.value, _line(key), value)
        for node in merged:
            value = self.value(node, (*path, "<<"))
            if isinstance(value, Mapping):
                for entry in value.entries:
                    if entry.key not in lines:
                        lines[entry.key] = entry.line
                        yield entry
            elif value is not None:
                self._report(value.line, path, "expected a mapping behind <<")
