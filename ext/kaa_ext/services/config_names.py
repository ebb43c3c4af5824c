"""The names of configurations, which ecr and cmx check in the same way."""

import re

from kaa_ext.sdk.errors import ExtensionError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def checked_name(name: str) -> str:
    """Return the name if a configuration may have it; else raise ExtensionError 400."""
    if not _NAME.fullmatch(name):
        raise ExtensionError(
            400, "The name of a configuration has 1 to 128 letters, digits, dashes and underscores"
        )
    return name
