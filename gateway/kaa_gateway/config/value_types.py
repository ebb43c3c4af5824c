"""The types of configuration values, and how each is written as text.

What lives here: the types that `kaa_gateway.config.keys` declares its keys with. What does not: reading a value from a
document or an environment variable (`kaa_gateway.config.values`), and which keys there are.
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

from msgspec import Meta

from kaa_gateway.bus.subjects import NAME

_LEVEL_NAME = r"^[A-Za-z0-9_.-]{1,255}\Z"
_UNITS = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class Form(NamedTuple):
    """The textual form of a type's values."""

    expected: str
    """What a value must be, in words for a message."""
    parse: Callable[[str], object]
    """Makes the value from its text. Raises ValueError for text that `expected` does not describe."""
    secret: bool = False
    """Whether the value may carry credentials; then no message repeats it."""
    show: Callable[[Any], str] = str
    """Makes the text of a value, as an operator would write it."""


def _boolean(text: str) -> bool:
    """Parse YAML 1.1's words: Kaa's own configuration files are read with them."""
    word = text.lower()
    if word not in ("true", "false", "yes", "no", "on", "off"):
        raise ValueError
    return word in ("true", "yes", "on")


def _optional_boolean(text: str) -> bool | None:
    return _boolean(text) if text else None


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
    if text == "*":
        return text
    return str(ipaddress.ip_address(text))


def _interface(text: str) -> str:
    if not re.fullmatch(r"[!-.0-~]{1,15}", text):
        raise ValueError
    return text


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _optional_path(text: str) -> Path | None:
    return Path(text) if text else None


def _multicast_group(text: str) -> str | None:
    if text and not ipaddress.IPv4Address(text).is_multicast:
        raise ValueError
    return text or None


def _server_reference(text: str) -> str | None:
    """Parse the value of the property Server Reference: MQTT 5 (OASIS) section 4.11."""
    if text and not re.fullmatch(r"[!-~]{1,255}( [!-~]{1,255}){0,15}", text):
        raise ValueError
    return text or None


def _alternative_address(text: str) -> str | None:
    """Parse an authority as in RFC 3986 section 3.2, without user information."""
    if text and not re.fullmatch(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?", text):
        raise ValueError
    return text or None


def _broker_url(text: str) -> str:
    parts = urlsplit(text)
    if (
        parts.scheme not in ("mqtt", "mqtts")
        or not parts.hostname
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or not re.fullmatch(r"[!-~]+", text)
        or not 0 < (parts.port or 1) < 65536
    ):
        raise ValueError
    return text


def _protocol_class(text: str) -> str | None:
    if text and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*|[A-Za-z0-9_.-]{1,128}", text, re.ASCII):
        raise ValueError
    return text or None


def _show_boolean(value: object) -> str:
    return str(value).lower()


def _optional_level_name(text: str) -> str | None:
    if text and not re.match(_LEVEL_NAME, text):
        raise ValueError
    return text or None


def _optional_name(text: str) -> str | None:
    if text and not NAME.match(text):
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
    """Return a URL that may be shown: its user, password or token is replaced by `***`."""
    return re.sub(r"^([a-z]+://)?.*@", r"\1***@", url, flags=re.DOTALL)


def _in_units(size: int) -> str:
    """Return a size in bytes as an operator would write it: 65536 is `64KiB`."""
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit if size and unit != 'B' else ''}"


def _decimal(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


Boolean = Annotated[bool, Form("true or false", _boolean)]
OptionalBoolean = Annotated[
    bool | None, Form("true or false, or nothing", _optional_boolean, show=_show_boolean)
]
Integer = Annotated[int, Form("an integer", _integer)]
Port = Annotated[Integer, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Form("a number of seconds", _seconds, show=_decimal)]
Ratio = Annotated[float, Form("a number from 0.000001 to 1", _ratio, show=_decimal)]
CollectorUrl = Annotated[
    str | None,
    Form("http://host[:port][/path] or https://..., without credentials", _collector_url, secret=True),
]
Size = Annotated[int, Form("a size (such as 65536 or 64KiB)", _size, show=_in_units)]
ServerReference = Annotated[
    str | None,
    Form("servers, such as mqtt.example.com:8883, with spaces between", _server_reference),
]
AlternativeAddress = Annotated[
    str | None, Form("a host and port, such as coap.example.com:5683", _alternative_address)
]
OptionalPath = Annotated[Path | None, Form("the path of a file", _optional_path)]
Ciphers = Annotated[str, Form("a list of OpenSSL cipher suites", _ciphers)]
Address = Annotated[str, Form("an IP address, or * for all of IPv4 and IPv6", _address)]
InterfaceName = Annotated[str, Form("the name of a network interface, such as eth0", _interface)]
InterfaceNames = tuple[InterfaceName, ...]
Network = Annotated[str, Form("an IP network, such as 10.0.0.0/8 or 2001:db8::/32", _network)]
Networks = tuple[Network, ...]
PathPrefix = Annotated[
    str,
    Form("an absolute URL path without a trailing slash, such as /kpc, or nothing", str),
    Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*\Z"),
]
UrlPath = Annotated[
    str,
    Form("a path such as /ws", str),
    Meta(pattern=r"^(/|(/[A-Za-z0-9._~-]+)+)\Z"),
]
UrlPaths = Annotated[tuple[UrlPath, ...], Meta(min_length=1)]
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
OptionalName = Annotated[
    str | None, Form("a name of 1 to 128 letters, digits, _ and -, not starting with -", _optional_name)
]
Names = tuple[Name, ...]
HostName = Annotated[
    str,
    Form("a host name, such as acme.example.com or *.acme.example.com", str),
    Meta(pattern=r"^(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,15}\Z"),
]
HostNames = tuple[HostName, ...]
BrokerUrl = Annotated[
    str, Form("mqtt://[user:password@]host[:port] or mqtts://...", _broker_url, secret=True)
]
TopicFilter = Annotated[
    str, Form("a topic filter of MQTT", str), Meta(pattern=r"^[^\x00-\x20\x7f$][^\x00-\x20\x7f]{0,511}\Z")
]
TopicFilters = tuple[TopicFilter, ...]
TopicTemplate = Annotated[
    str,
    Form("a topic whose levels may be {name}, and the last one #", str),
    Meta(pattern=r"^[^\x00-\x20\x7f+]{0,512}\Z"),
]
ProtocolClass = Annotated[str | None, Form("module:Class, or the name of an entry point", _protocol_class)]
ProtocolOption = Annotated[
    str, Form("an option as name=value", str), Meta(pattern=r"^[a-z][a-z0-9_]{0,63}=[ -~]{0,255}\Z")
]
ProtocolOptions = tuple[ProtocolOption, ...]
PredefinedTopic = Annotated[
    str,
    Form("a topic ID from 1 to 65534 and its topic, as ID=topic", str),
    Meta(pattern=r"^[1-9][0-9]{0,4}=[^+#\x00]{1,1024}\Z"),
]
PredefinedTopicList = tuple[PredefinedTopic, ...]
MulticastGroup = Annotated[str | None, Form("an IPv4 multicast address, or nothing", _multicast_group)]
Origin = Annotated[
    str,
    Form("* or an origin, such as https://app.example.com", str),
    Meta(pattern=r"^(\*|https?://([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?)\Z"),
]
Origins = tuple[Origin, ...]
NatsUrl = Annotated[str, Form("nats://[user:password@]host[:port] or tls://...", _nats_url, secret=True)]
NatsUrls = Annotated[tuple[NatsUrl, ...], Meta(min_length=1)]


def form_of(hint: Any) -> Form:
    """Return the form of a type; that of a Literal is made from its words."""
    base, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(base) is Literal:
        return Form("one of " + ", ".join(get_args(base)), str)
    return next(note for note in notes if isinstance(note, Form))


def element_of(hint: Any) -> Any | None:
    """Return the type of the elements if `hint` is a list type, else None."""
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return get_args(base)[0] if get_origin(base) is tuple else None


def annotation(hint: Any, name: str) -> Any:
    """Return the last value of a `Meta` attribute in a type's annotations, or None."""
    found = [getattr(note, name) for note in get_args(hint)[1:] if isinstance(note, Meta)]
    return next((value for value in reversed(found) if value is not None), None)
