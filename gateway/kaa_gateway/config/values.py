"""How the values of the configuration are written: text to typed value, and what was expected in words.

What lives here: the types that `kaa_gateway.config.keys` declares its keys with, and `read`, which turns text
into one of them, from YAML and from an environment variable alike. What does not: which keys there are.
"""

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from kaa_gateway.bus.subjects import NAME
from kaa_gateway.config.document import Scalar, Sequence, Value

SHOWN_CHARACTERS = 60
"""How much of a wrong value a message repeats."""

_LEVEL_NAME = r"^[A-Za-z0-9_.-]{1,255}\Z"
_UNITS = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class Form(NamedTuple):
    """How a type is written: `parse` raises ValueError for text that is not what `expected` says."""

    expected: str
    parse: Callable[[str], object]
    secret: bool = False
    """The value may carry credentials: no message repeats it."""


class UnexpectedValue(ValueError):  # noqa: N818 - named after what it reports
    """A value is not what its key needs; the message says what was expected, `line` where it stands."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def _boolean(text: str) -> bool:
    """YAML 1.1's words, which is what Kaa's own configuration files are read with."""
    word = text.lower()
    if word not in ("true", "false", "yes", "no", "on", "off"):
        raise ValueError
    return word in ("true", "yes", "on")


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise ValueError
    return float(text)


def _ratio(text: str) -> float:
    if not re.fullmatch(r"[0-9.]{1,20}(e-[0-9]{1,2})?", text) or not 1e-6 <= float(text) <= 1:
        raise ValueError
    return float(text)


def _collector_url(text: str) -> str | None:
    if not text:
        return None
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not re.fullmatch(r"[!-~]+", text)
    ):
        raise ValueError
    return text.rstrip("/")


def _size(text: str) -> int:
    matched = re.fullmatch(r"([0-9]{1,15}) ?(B|KiB|MiB|GiB|)", text)
    if matched is None:
        raise ValueError
    return int(matched[1]) * _UNITS[matched[2]]


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _optional_path(text: str) -> Path | None:
    return Path(text) if text else None


def _optional_level_name(text: str) -> str | None:
    if text and not re.match(_LEVEL_NAME, text):
        raise ValueError
    return text or None


def _ciphers(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,1000}", text):
        raise ValueError
    return text


def _nats_url(text: str) -> str:
    url = text if "://" in text else f"nats://{text}"
    parts = urlsplit(url)
    if (
        parts.scheme not in ("nats", "tls")
        or not parts.hostname
        or parts.port == 0
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or re.search(r"[\s\x00-\x1f]", text)
    ):
        raise ValueError
    return url.rstrip("/")


def masked(url: str) -> str:
    """A NATS URL that may be logged: its user, password or token is replaced by `***`."""
    return re.sub(r"^([a-z]+://)?.*@", r"\1***@", url, flags=re.DOTALL)


Boolean = Annotated[bool, Form("true or false", _boolean)]
Integer = Annotated[int, Form("an integer", _integer)]
Port = Annotated[Integer, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Form("a number of seconds", _seconds)]
Ratio = Annotated[float, Form("a number from 0.000001 to 1", _ratio)]
CollectorUrl = Annotated[
    str | None,
    Form("http://host[:port][/path] or https://..., without credentials", _collector_url, secret=True),
]
Size = Annotated[int, Form("a size (such as 65536 or 64KiB)", _size)]
OptionalPath = Annotated[Path | None, Form("the path of a file", _optional_path)]
Ciphers = Annotated[str, Form("a list of OpenSSL cipher suites", _ciphers)]
Address = Annotated[str, Form("an IP address", _address)]
PathPrefix = Annotated[
    str,
    Form("an absolute URL path without a trailing slash, such as /kpc, or nothing", str),
    Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*\Z"),
]
Name = Annotated[
    str,
    Form("a name of 1 to 128 letters, digits, _ and -, not starting with -", str),
    Meta(pattern="^" + NAME.pattern),
]
"""One NATS subject token."""

LevelName = Annotated[
    str,
    Form("a name of 1 to 255 letters, digits, _, - and .", str),
    Meta(pattern=_LEVEL_NAME),
]
"""One level of a 1/KP resource path that never becomes a subject token."""

OptionalLevelName = Annotated[
    str | None, Form("a name of 1 to 255 letters, digits, _, - and .", _optional_level_name)
]
Names = tuple[Name, ...]
NatsUrl = Annotated[str, Form("nats://[user:password@]host[:port] or tls://...", _nats_url, secret=True)]
NatsUrls = Annotated[tuple[NatsUrl, ...], Meta(min_length=1)]


def _form(hint: Any) -> Form:
    """The form of a type; a Literal's is made from its words."""
    base, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(base) is Literal:
        return Form("one of " + ", ".join(get_args(base)), str)
    return next(note for note in notes if isinstance(note, Form))


def _element(hint: Any) -> Any | None:
    """The type of the elements, if `hint` is a list type."""
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return get_args(base)[0] if get_origin(base) is tuple else None


def annotation(hint: Any, name: str) -> Any:
    """The last value of a `Meta` attribute in a type's annotations, or None."""
    found = [getattr(note, name) for note in get_args(hint)[1:] if isinstance(note, Meta)]
    return next((value for value in reversed(found) if value is not None), None)


def _in_units(size: int) -> str:
    """A size in bytes as an operator would write it: 65536 is `64KiB`."""
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit if size and unit != 'B' else ''}"


def _decimal(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


def expected(hint: Any) -> str:
    """What a value of this type looks like, with its bounds, in words."""
    element = _element(hint)
    if element is not None:
        return f"a list, or text with commas, each {expected(element)}"
    form = _form(hint)
    low, high = annotation(hint, "ge"), annotation(hint, "le")
    if low is None or high is None:
        return form.expected
    show = _in_units if form.parse is _size else _decimal if form.parse is _seconds else str
    return f"{form.expected} from {show(low)} to {show(high)}"


def written(hint: Any, value: object) -> str:
    """A value of this type as an operator would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int) and _form(hint).parse is _size:
        return _in_units(value)
    if isinstance(value, float):
        return _decimal(value)
    return "" if value is None else str(value)


def _read_text(hint: Any, text: str, line: int | None) -> object:
    form = _form(hint)
    try:
        return msgspec.convert(form.parse(text), hint)
    except (ValueError, msgspec.ValidationError):
        shown = "a value that is not shown" if form.secret else _quoted(text)
        raise UnexpectedValue(f"expected {expected(hint)}, got {shown}", line) from None


def _quoted(text: str) -> str:
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return json.dumps(shown, ensure_ascii=False)


def shape(value: Value) -> str:
    """What stands where something else was expected; never its text, which may be a secret."""
    if isinstance(value, Scalar):
        return "nothing" if value.text is None else "text"
    return "a list" if isinstance(value, Sequence) else "a mapping"


def read(hint: Any, value: Value, line: int | None) -> object:
    """The typed value that `value` writes, which is not null.

    Raises `UnexpectedValue`, in `line` where the value itself does not say on which line it stands.
    """
    element = _element(hint)
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
