"""The file of pre-shared keys of a listener: DTLS, or encrypted KP/UDP.

YAML: `keys:` with an identity and its key in hexadecimal on each line, `binary-identities:` likewise with identities in
hexadecimal, for devices whose identities are not text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog

from kaa_gateway.net.certificates import read, unusable
from kaa_gateway.net.dtls_context import shown_identity
from kaa_gateway.yaml_tree import Mapping, Scalar, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kaa_gateway.yaml_tree import Entry

KEY = re.compile(r"([0-9a-fA-F]{2}){1,64}\Z")
"""A pre-shared key: 1 to 64 bytes in hexadecimal."""
SAFE_KEY_SIZE = 16
"""Bytes of a key that cannot be guessed. Whoever records a handshake can try shorter ones at leisure."""
IDENTITY = re.compile(r"[^\x00-\x1f\x7f]{1,128}\Z")
BINARY_IDENTITY = re.compile(r"([0-9a-fA-F]{2}){1,128}\Z")
IDENTITY_SIZE_MAX = 128
"""Bytes. OpenSSL takes no longer one."""
TEXTS, BINARIES = "keys", "binary-identities"

log = structlog.get_logger("gateway.transports")


def read_keys(key: str, path: Path) -> dict[bytes, bytes]:
    """Return the pre-shared keys of a file by identity. Raises ConfigError, which shows no key.

    Keys that are shorter than SAFE_KEY_SIZE are taken, with a warning in the log.
    """
    try:
        text = read(key, path).decode()
    except UnicodeDecodeError:
        raise unusable(key, f"{path}: cannot be read: not UTF-8 text") from None
    problems: list[str] = []

    def report(line: int | None, names: tuple[str, ...], message: str) -> None:
        problems.append(f"{path}:{line}: {message}")

    document = parse(text, report)
    root = document.entries if isinstance(document, Mapping) else []
    if not problems and (
        not root
        or not {entry.key for entry in root} <= {TEXTS, BINARIES}
        or not all(isinstance(entry.value, Mapping) for entry in root)
    ):
        report(1, (), f"expected the mappings {TEXTS} or {BINARIES}")
    keys: dict[bytes, bytes] = {}
    shown: set[str] = set()
    short = 0
    for section in root:
        for entry in section.value.entries if isinstance(section.value, Mapping) else []:
            identity = _identity(entry, report, binary=section.key == BINARIES)
            value = entry.value.text if isinstance(entry.value, Scalar) else None
            if identity is None:
                continue
            if shown_identity(identity) in shown:
                report(entry.line, (), "this identity is there already")
            elif value is None or not KEY.match(value):
                report(entry.line, (), "expected a key of 1 to 64 bytes in hexadecimal")
            else:
                keys[identity] = bytes.fromhex(value)
                shown.add(shown_identity(identity))
                short += len(keys[identity]) < SAFE_KEY_SIZE
    if problems:
        raise unusable(key, problems[0])
    if short:
        log.warning(
            "pre-shared keys are so short that they can be guessed",
            file=str(path),
            keys=short,
            safe_bytes=SAFE_KEY_SIZE,
        )
    return keys


def _identity(entry: Entry, report: Callable[..., None], *, binary: bool) -> bytes | None:
    """Return the identity of a line, or None after reporting what is wrong with it."""
    if binary and BINARY_IDENTITY.match(entry.key):
        return bytes.fromhex(entry.key)
    if not binary and IDENTITY.match(entry.key) and len(entry.key.encode()) <= IDENTITY_SIZE_MAX:
        return entry.key.encode()
    report(
        entry.line,
        (),
        "expected an identity of 1 to 128 bytes in hexadecimal"
        if binary
        else "expected an identity of 1 to 128 printable characters",
    )
    return None
