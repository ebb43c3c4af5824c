"""The settings file of `kaa-ext run`: YAML, by service instance.

    dcx:
      must-confirm: [epts]
    epmx:
      access: {serial_number: read}

Missing keys have their defaults. An error is a sentence that names the key.
"""

from pathlib import Path
from typing import Any

import msgspec
import yaml


class SettingsError(ValueError):
    """A settings file is wrong; the message says how."""


def read(path: Path) -> dict[str, Any]:
    """Return the sections of a settings file by service instance, unchecked."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}: not YAML{where}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise SettingsError(f"{path}: expected a mapping of service instances to their settings")
    return document


def convert(path: Path, instance: str, section: Any, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Convert the section of an instance to its settings. Raise SettingsError if it does not fit."""
    try:
        return msgspec.convert(section if section is not None else {}, kind)
    except msgspec.ValidationError as error:
        sentence = str(error).replace("`", "").replace(" - at $.", " - at ").removesuffix(" - at $")
        raise SettingsError(f"{path}: {instance}: {sentence}") from error
