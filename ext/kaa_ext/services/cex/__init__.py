"""cex, command execution: 12/CIP from callers, 11/CEP to devices.

A command is outstanding until its endpoint sends a result or its time is over; the caller is told of either. A command
is pushed at once, and again when its endpoint connects, unless the endpoint said `"observe": false`. A connection gets
a command once, unless the endpoint asks for the outstanding ones.

`service` speaks to callers and devices, `store` changes the state, `commands` is the stored data, `expiry` ends
commands whose time is over.

Source: 11/CEP "Command Execution Protocol", 12/CIP "Command Invocation Protocol", 9/ELCE.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kaa_ext.services.cex.commands import OUTSTANDING, RESULTS, Command, Outstanding, Result

if TYPE_CHECKING:
    from kaa_ext.services.cex.service import Settings, register
    from kaa_ext.services.cex.store import COMMANDS_BYTES_MAX, COMMANDS_MAX

__all__ = [
    "COMMANDS_BYTES_MAX",
    "COMMANDS_MAX",
    "OUTSTANDING",
    "RESULTS",
    "Command",
    "Outstanding",
    "Result",
    "Settings",
    "register",
]

_MODULES = {
    "Settings": "service",
    "register": "service",
    "COMMANDS_BYTES_MAX": "store",
    "COMMANDS_MAX": "store",
}
"""The modules of names that need the SDK. They are imported when they are used: `kaa-ext command` does without."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
