"""The file of the identity provider `static`: tokens with their endpoints, and clients, in YAML.

    endpoints:
      <application version name>:
        <token>: <endpoint ID>
    clients:
      <user name>:
        password: <hash, see kaa_gateway.identity.passwords>
        tenant: <tenant ID; may be left out>
    certificates:
      <issuer>:
        <serial number, base 10>:
          tenant: <tenant ID; may be left out>

Messages about it name line and key. They show no whole token and no hash.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kaa_gateway.errors import ConfigError
from kaa_gateway.identity import passwords
from kaa_gateway.identity.provider import Identity, shortened
from kaa_gateway.yaml_tree import Mapping, Scalar, Value, one_line, parse

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT_ID = re.compile(r"[^\x00-\x1f\x7f]{1,255}\Z")
"""What an endpoint ID may be: short, printable text."""

TOKEN = re.compile(r"[^\x00-\x1f\x7f/+#]{1,255}\Z")
"""What a token may be: one level of an MQTT topic, which has no wildcards."""

SERIAL_NUMBER = re.compile(r"[0-9]{1,60}\Z")
TENANT = re.compile(r"[A-Za-z0-9_.-]{1,255}\Z")


class StaticClient(NamedTuple):
    """A client of the file; one with a certificate has no password."""

    password_hash: str | None
    tenant: str | None


class StaticFile(NamedTuple):
    """The content of a file."""

    identities: dict[tuple[str, str], Identity]
    """By application version and token."""
    clients: dict[str, StaticClient]
    """By user name."""
    certificates: dict[tuple[str, str], StaticClient]
    """By issuer and serial number."""


def read_static_file(path: Path) -> StaticFile:
    """Read a file. Raises `ConfigError`, whose `detail` lists all that is wrong, one line each."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError("identity_file_invalid", f"{path}: cannot be read: {cause}") from None
    reader = _FileReader(str(path))
    document = parse(text, reader.report)
    if document is not None:
        reader.document(document)
    elif not reader.problems:
        reader.report(None, (), "expected the key endpoints, got nothing")
    if reader.problems:
        raise ConfigError("identity_file_invalid", "\n".join(reader.problems))
    return reader.file


class _FileReader:
    """Collects the content of a file, and its problems."""

    def __init__(self, name: str) -> None:
        self.problems: list[str] = []
        self.file = StaticFile({}, {}, {})
        self._name = name

    def report(self, line: int | None, path: tuple[str, ...], message: str) -> None:
        """Add a problem. A token in `path`, its third key, is shortened."""
        shown = [
            shortened(name) if depth == 2 and path[0] not in ("clients", "certificates") else name
            for depth, name in enumerate(path)
        ]
        place = self._name if line is None else f"{self._name}:{line}"
        self.problems.append(one_line(place, ".".join(shown), message))

    def document(self, document: Value) -> None:
        """Take the whole file."""
        parts = {"endpoints": self._endpoint, "clients": self._client, "certificates": self._certificate}
        for entry in self._mapping(document, ()).entries:
            take = parts.get(entry.key)
            if take is None:
                self.report(entry.line, (entry.key,), f"unknown key; known are {', '.join(parts)}")
                continue
            for outer in self._mapping(entry.value, (entry.key,)).entries:
                path = (entry.key, outer.key)
                if take == self._client:
                    self.file.clients[outer.key] = StaticClient(None, None)
                for inner in self._mapping(outer.value, path).entries:
                    take((*path, inner.key), inner.line, inner.value)
        for user_name, client in self.file.clients.items():
            if client.password_hash is None:
                self.report(None, ("clients", user_name), "password is missing")

    def _mapping(self, value: Value, path: tuple[str, ...]) -> Mapping:
        """Return the mapping that must be here; null is an empty one."""
        if isinstance(value, Mapping):
            return value
        if not (isinstance(value, Scalar) and value.text is None):
            self.report(value.line, path, "expected a mapping")
        return Mapping(value.line, [])

    def _endpoint(self, path: tuple[str, str, str], line: int, value: Value) -> None:
        endpoint_id = value.text if isinstance(value, Scalar) else None
        if not TOKEN.match(path[2]):
            self.report(line, path, "expected a token of 1 to 255 printable characters without /, + and #")
        elif endpoint_id is None or not ENDPOINT_ID.match(endpoint_id):
            self.report(line, path, "expected an endpoint ID of 1 to 255 printable characters")
        else:
            self.file.identities[path[1], path[2]] = Identity(endpoint_id)

    def _client(self, path: tuple[str, str, str], line: int, value: Value) -> None:
        text = value.text if isinstance(value, Scalar) else None
        client = self.file.clients[path[1]]
        if path[2] == "password":
            if text is None or not passwords.is_hash(text):
                self.report(line, path, "expected what `kaa-gateway hash-password` prints")
                text = ""
            client = client._replace(password_hash=text)
        elif path[2] == "tenant":
            client = client._replace(tenant=self._tenant(path, line, value))
        else:
            self.report(line, path, "unknown key; known are password, tenant")
        self.file.clients[path[1]] = client

    def _certificate(self, path: tuple[str, str, str], line: int, value: Value) -> None:
        if not SERIAL_NUMBER.match(path[2]):
            self.report(line, path, "expected a serial number in base 10")
        tenant = None
        for entry in self._mapping(value, path).entries:
            if entry.key == "tenant":
                tenant = self._tenant((*path, "tenant"), entry.line, entry.value)
            else:
                self.report(entry.line, (*path, entry.key), "unknown key; known is tenant")
        self.file.certificates[path[1], str(int(path[2])) if path[2].isdecimal() else path[2]] = StaticClient(
            None, tenant
        )

    def _tenant(self, path: tuple[str, ...], line: int, value: Value) -> str | None:
        text = value.text if isinstance(value, Scalar) else ""
        if text is not None and not TENANT.match(text):
            self.report(line, path, "expected a tenant ID of 1 to 255 letters, digits, _, - and .")
        return text
