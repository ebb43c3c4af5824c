"""Parameters, input and error messages that the commands of `kaa-ext` share."""

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from kaa_gateway.bus import subjects

from kaa_ext.cli.exits import fail
from kaa_ext.sdk.urls import nats_urls

Nats: TypeAlias = Annotated[
    str, Parameter(name="--nats", env_var="NATS_URLS", help="NATS server URLs, separated by commas.")
]
Domain: TypeAlias = Annotated[
    str | None,
    Parameter(
        name="--jetstream-domain",
        env_var="NATS_JETSTREAM_DOMAIN",
        help="JetStream domain of the streams of the gateway and of states, if NATS is a leaf node.",
    ),
]
AppVersion: TypeAlias = Annotated[
    str,
    Parameter(name="--app-version", env_var="KAA_APP_VERSION", help="Application version of the endpoint."),
]

_DURATION = re.compile(r"([0-9]{1,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def servers(text: str) -> list[str]:
    """Return the NATS servers in the value of --nats."""
    try:
        return nats_urls(text)
    except ValueError as error:
        fail(str(error))


def check_instance(*names: str) -> None:
    """Exit with an error if one of these cannot be the name of a service instance."""
    for name in names:
        if not subjects.NAME.fullmatch(name):
            fail(f"service instance {name!r}: expected 1 to 128 letters, digits, dashes and underscores")


def check_domain(domain: str | None) -> None:
    """Exit with an error if the value of --jetstream-domain cannot be the name of a domain."""
    if domain is not None and not subjects.NAME.fullmatch(domain):
        fail(f"--jetstream-domain {domain!r}: expected 1 to 128 letters, digits, dashes and underscores")


def duration(option: str, text: str) -> timedelta:
    """Return the duration in the value of an option, such as 90s or 7d."""
    found = _DURATION.fullmatch(text)
    if found is None:
        fail(f"{option} {text}: expected a number up to 99999 with s, m, h or d, as in 90s or 7d")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def json_argument(text: str) -> bytes:
    """Return the JSON of an argument: its text, the content of a file for @FILE, standard input for @-."""
    if text == "@-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            fail(f"{text[1:]}: {error.strerror}")
    return text.encode()
