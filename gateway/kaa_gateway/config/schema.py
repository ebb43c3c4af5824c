"""The base of the structs that declare configuration keys, and how to walk them.

What lives here: which keys a section has, with their types, defaults and environment variables. What does not: any key
(`kaa_gateway.config.keys`).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from kaa_gateway.config.value_types import annotation

Path: TypeAlias = tuple[str, ...]
"""The place of a key: its names from the root. Only names that the operator chooses may have dots."""


def variable_of(path: Path) -> str:
    """Return the environment variable of a key by rule: upper case, dots and dashes to underscores."""
    return re.sub(r"[^A-Za-z0-9]", "_", ".".join(path)).upper()


class Section(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A mapping with fixed keys."""


class Key(NamedTuple):
    """One key that takes a value: where it is, its type, and its default."""

    path: Path
    hint: Any
    default: object

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        named: str | None = (annotation(self.hint, "extra") or {}).get("variable")
        return named or variable_of(self.path)


@cache
def members(section: type[Section]) -> dict[str, Any]:
    """Return the types of a section's keys, by key."""
    return {each.encode_name: each.type for each in fields(section)}


def is_section(hint: Any) -> bool:
    """Return whether a type is a section."""
    return isinstance(hint, type) and issubclass(hint, Section)


def entry_types(hint: Any) -> tuple[Any, type[Section]] | None:
    """Return the types of name and entry if `hint` is a mapping whose keys are the operator's names, else None."""
    if get_origin(hint) is not dict:
        return None
    name, entry = get_args(hint)
    return name, entry


def keys(section: type[Section], names: Callable[[Path], Iterable[str]], path: Path = ()) -> Iterator[Key]:
    """Yield every key below `section` that takes a value; `names` tells which entries the mapping at a path has."""
    for each in fields(section):
        here = (*path, each.encode_name)
        entry = entry_types(each.type)
        if is_section(each.type):
            yield from keys(each.type, names, here)
        elif entry is not None:
            for name in names(here):
                yield from keys(entry[1], names, (*here, name))
        else:
            factory = each.default_factory
            yield Key(here, each.type, each.default if factory is NODEFAULT else factory())
