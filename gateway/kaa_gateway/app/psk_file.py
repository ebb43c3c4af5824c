"""The file of pre-shared keys of the listener with DTLS: YAML, `keys:` with an identity and its key on each line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kaa_gateway.net.certificates import read, unusable
from kaa_gateway.yaml_tree import Mapping, Scalar, parse

if TYPE_CHECKING:
    from pathlib import Path

KEY = re.compile(r"([0-9a-fA-F]{2}){16,64}\Z")
"""A pre-shared key: 16 to 64 bytes in hexadecimal."""

IDENTITY = re.compile(r"[^\x00-\x1f\x7f]{1,128}\Z")


def read_keys(key: str, path: Path) -> dict[bytes, bytes]:
    """Return the pre-shared keys of a file by identity. Raises ConfigError, which shows no key."""
    try:
        text = read(key, path).decode()
    except UnicodeDecodeError:
        raise unusable(key, f"{path}: cannot be read: not UTF-8 text") from None
    problems: list[str] = []

    def report(line: int | None, names: tuple[str, ...], message: str) -> None:
        problems.append(f"{path}:{line}: {message}")

    document = parse(text, report)
    root = document.entries if isinstance(document, Mapping) else []
    if not problems and ([entry.key for entry in root] != ["keys"] or not isinstance(root[0].value, Mapping)):
        report(1, (), "expected one mapping, keys")
    keys: dict[bytes, bytes] = {}
    entries = root[0].value.entries if root and isinstance(root[0].value, Mapping) else []
    for entry in entries:
        value = entry.value.text if isinstance(entry.value, Scalar) else None
        if not IDENTITY.match(entry.key) or len(entry.key.encode()) > 128:
            report(entry.line, (), "expected an identity of 1 to 128 printable characters")
        elif value is None or not KEY.match(value):
            report(entry.line, (), "expected a key of 16 to 64 bytes in hexadecimal")
        else:
            keys[entry.key.encode()] = bytes.fromhex(value)
    if problems:
        raise unusable(key, problems[0])
    return keys
