"""The identity provider `static`: tokens and their endpoints from a YAML file.

    endpoints:
      <application version name>:
        <token>: <endpoint ID>

The file is read at start. Messages about it name line and key, and show no token whole.
"""

import re
from pathlib import Path

from gateway.config_yaml import Mapping, Scalar, Value, one_line, parse
from gateway.errors import ConfigError, IdentityError
from gateway.identity.provider import TOKEN_REJECTED, Identity, shortened

ENDPOINT_ID = re.compile(r"[^\x00-\x1f\x7f]{1,255}\Z")
"""What an endpoint ID may be: short, printable text."""

TOKEN = re.compile(r"[^\x00-\x1f\x7f/+#]{1,255}\Z")
"""What a token may be: one level of an MQTT topic, which has no wildcards."""

ROOT_KEY = "endpoints"


class StaticProvider:
    """Accepts the tokens of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identities: dict[tuple[str, str], Identity] = {}

    async def start(self) -> None:
        """Reads the file. Raises `ConfigError`, whose `detail` lists all that is wrong, one line each."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ConfigError("identity_file_invalid", f"{self._path}: cannot be read: {cause}") from None
        reader = _FileReader(str(self._path))
        document = parse(text, reader.report)
        if document is not None:
            reader.document(document)
        elif not reader.problems:
            reader.report(None, (), f"expected the key {ROOT_KEY}, got nothing")
        if reader.problems:
            raise ConfigError("identity_file_invalid", "\n".join(reader.problems))
        self._identities = reader.identities

    async def stop(self) -> None:
        """Forgets the file."""
        self._identities = {}

    async def resolve(self, app_version_name: str, token: str) -> Identity:
        """The endpoint that the file gives the token in this application version."""
        identity = self._identities.get((app_version_name, token))
        if identity is None:
            raise IdentityError(401, TOKEN_REJECTED)
        return identity


class _FileReader:
    """Collects what a file says, and what is wrong with it."""

    def __init__(self, name: str) -> None:
        self.problems: list[str] = []
        self.identities: dict[tuple[str, str], Identity] = {}
        self._name = name

    def report(self, line: int | None, path: tuple[str, ...], message: str) -> None:
        """Notes a problem; a token in `path`, its third key, is shortened."""
        shown = [shortened(name) if depth == 2 else name for depth, name in enumerate(path)]
        place = self._name if line is None else f"{self._name}:{line}"
        self.problems.append(one_line(place, ".".join(shown), message))

    def document(self, document: Value) -> None:
        """Takes the whole file."""
        for entry in self._mapping(document, ()).entries:
            if entry.key != ROOT_KEY:
                self.report(entry.line, (entry.key,), f'unknown key; did you mean "{ROOT_KEY}"?')
                continue
            for version in self._mapping(entry.value, (ROOT_KEY,)).entries:
                path = (ROOT_KEY, version.key)
                for endpoint in self._mapping(version.value, path).entries:
                    self._endpoint((*path, endpoint.key), endpoint.line, endpoint.value)

    def _mapping(self, value: Value, path: tuple[str, ...]) -> Mapping:
        """The mapping that must be here; a null is an empty one."""
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
            self.identities[path[1], path[2]] = Identity(endpoint_id)
