"""docs/pointers.md names every pointer that an object of native code keeps when a call has returned."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/pointers.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:cdef|ctypedef) (?:public |packed )?(class|struct|union) ([\w.]+)")
FIELD = re.compile(
    r" {4}(?:cdef )?(?:readonly |public |const |unsigned )*([\w.]+)(?:\[\w+\])* ?(\**) ?(\w[^()#=]*?)(?: *[#=].*)?"
)
OF_THE_SYSTEM = {"Py_buffer", "iovec", "mmsghdr", "msghdr"}
"""Structures of C that contain pointers."""


class Field(NamedTuple):
    """A field of a class or a structure; `type` is without the name of its module, and without stars."""

    module: str
    owner: str
    of_class: bool
    type: str
    is_pointer: bool
    name: str


def fields_of(module: str, source: str) -> list[Field]:
    """Return the fields of the classes and structures in a .pxd or .pyx file."""
    found = []
    owner, of_class = "", False
    for line in source.splitlines():
        if block := BLOCK.match(line):
            owner, of_class = block[2], block[1] == "class"
        elif line and line[0] not in " #":
            owner = ""
        elif owner and (not of_class or line.startswith("    cdef ")) and (field := FIELD.fullmatch(line)):
            found += [
                Field(
                    module,
                    owner,
                    of_class,
                    field[1].split(".")[-1],
                    "*" in field[2] + name,
                    name.strip("* ").split("[")[0],
                )
                for name in field[3].split(",")
            ]
    return found


def kept_pointers(fields: list[Field]) -> list[Field]:
    """Return the pointers and borrowed slices that objects keep, in themselves and in the structures that they have."""
    own = {(each.module, each.owner): each for each in fields if not each.of_class}

    def structure(field: Field) -> tuple[str, str]:
        """Return what `field` has: the structure of its module, or the one of that name in another module."""
        here = (field.module, field.type)
        return here if here in own else next((each for each in own if each[1] == field.type), here)

    holding = {key for key in own if key[1] == "Slice"}
    kept = {structure(each) for each in fields if each.of_class}
    for _ in range(5):
        holding |= {
            (each.module, each.owner)
            for each in fields
            if not each.of_class
            and (each.is_pointer or each.type in OF_THE_SYSTEM or structure(each) in holding)
        }
        kept |= {structure(each) for each in fields if (each.module, each.owner) in kept}
    return [
        each
        for each in fields
        if (each.is_pointer and (each.module, each.owner) in kept and each.owner != "Slice")
        or (each.of_class and (each.is_pointer or each.type in OF_THE_SYSTEM or structure(each) in holding))
    ]


def is_listed(field: Field) -> bool:
    """Return whether a row of the page's tables begins with a field."""
    rows = [row.split("|")[1] for row in PAGE.splitlines() if row.startswith("| ")]
    return any(
        f"{field.module}: " in row and f"{field.owner}." in row and re.search(rf"\b{field.name}\b", row)
        for row in rows
    )


def test_pointers_and_slices_in_classes_are_found() -> None:
    source = (
        "cdef struct View:\n    Slice text  # borrowed\n\ncdef struct Entry:\n    int size\n    PyObject* owner\n\n"
        "cdef class Table:\n    cdef readonly Entry* entries\n    cdef View[4] views\n    cdef int32_t *a, *b  # two\n"
        "    cdef Py_ssize_t count\n    cdef int grow(self) except -1:\n        cdef Entry* local\n"
    )
    fields = fields_of("x", "cdef struct Slice:\n    const uint8_t* data\n") + fields_of("x", source)
    found = {f"{field.owner}.{field.name}" for field in kept_pointers(fields)}
    assert found == {"Entry.owner", "Table.entries", "Table.views", "Table.a", "Table.b"}


def test_the_page_has_every_pointer() -> None:
    fields = [
        field
        for package in ("gateway/kaa_gateway", "ext/kaa_ext")
        for path in sorted((ROOT / package).rglob("*.p[xy][dx]"))
        for field in fields_of(
            path.relative_to(ROOT / package).with_suffix("").as_posix(), path.read_text("utf-8")
        )
    ]
    missing = [
        f"{each.module}: {each.owner}.{each.name}" for each in kept_pointers(fields) if not is_listed(each)
    ]
    assert not missing
