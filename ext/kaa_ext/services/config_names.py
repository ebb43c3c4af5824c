"""The names of configurations, which ecr and cmx check in the same way. `default` is the configuration without name."""

import re

from kaa_ext.messages import cdtp
from kaa_ext.sdk.errors import ExtensionError

DEFAULT = "default"
"""What 4/ESP and 6/CDTP call the configuration without name."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def canonical_name(name: str | None) -> str:
    """Return the name under which a configuration is kept; that of the default one is empty.

    Raise ExtensionError 400 if no configuration may have the name.
    """
    return checked_name(name) if name and name != DEFAULT else cdtp.DEFAULT_NAME


def checked_name(name: str) -> str:
    """Return the name if a configuration may have it; else raise ExtensionError 400."""
    if not _NAME.fullmatch(name):
        raise ExtensionError(
            400, "The name of a configuration has 1 to 128 letters, digits, dashes and underscores"
        )
    return name
