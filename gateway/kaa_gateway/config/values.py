"""Reading configuration values: text to typed values, and messages that say what was expected.

What lives here: `read`, for values from YAML and from environment variables alike. What does not: the types
(`kaa_gateway.config.value_types`), and which keys there are (`kaa_gateway.config.keys`).
"""

import json
from typing import Any

import msgspec

from kaa_gateway.config.value_types import annotation, element_of, form_of
from kaa_gateway.yaml_tree import Scalar, Sequence, Value

SHOWN_CHARACTERS = 60
"""How much of a wrong value a message repeats."""


class UnexpectedValue(ValueError):  # noqa: N818 - named after what it reports
    """A value is not what its key needs. The message says what was expected; `line` is the line of the value."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def expected(hint: Any) -> str:
    """Return in words what a value of this type looks like, with its bounds."""
    element = element_of(hint)
    if element is not None:
        return f"a list, or text with commas, each {expected(element)}"
    form = form_of(hint)
    low, high = annotation(hint, "ge"), annotation(hint, "le")
    if low is None or high is None:
        return form.expected
    return f"{form.expected} from {form.show(low)} to {form.show(high)}"


def written(hint: Any, value: object) -> str:
    """Return a value of this type as an operator would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else form_of(hint).show(value)


def _read_text(hint: Any, text: str, line: int | None) -> object:
    form = form_of(hint)
    try:
        return msgspec.convert(form.parse(text), hint)
    except (ValueError, msgspec.ValidationError):
        shown = "a value that is not shown" if form.secret else _quoted(text)
        raise UnexpectedValue(f"expected {expected(hint)}, got {shown}", line) from None


def _quoted(text: str) -> str:
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return json.dumps(shown, ensure_ascii=False)


def shape(value: Value) -> str:
    """Return what kind of value this is, for a message; never its text, which may be a secret."""
    if isinstance(value, Scalar):
        return "nothing" if value.text is None else "text"
    return "a list" if isinstance(value, Sequence) else "a mapping"


def read(hint: Any, value: Value, line: int | None) -> object:
    """Return the typed value of `value`, which is not null.

    Raises `UnexpectedValue`. Its line is that of the value, or `line` if the value does not know its own.
    """
    element = element_of(hint)
    text = value.text if isinstance(value, Scalar) else None
    if element is None and text is not None:
        return _read_text(hint, text, line)
    items: list[object] | None = None
    if element is not None and text is not None:
        items = [_read_text(element, part.strip(), line) for part in text.split(",")] if text else []
    elif element is not None and isinstance(value, Sequence):
        items = [read(element, item, item.line) for item in value.items]
    if items is None or len(items) < (annotation(hint, "min_length") or 0):
        got = "nothing" if items == [] else shape(value)
        raise UnexpectedValue(f"expected {expected(hint)}, got {got}", line)
    return tuple(items)
