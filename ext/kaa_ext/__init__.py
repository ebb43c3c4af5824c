"""Extension services for the Kaa device gateway: the SDK, the reference services, and the command `kaa-ext`.

A service is an `Extension` whose handlers take a `Request` and return a value or a `Response`, or raise an
`ExtensionError`; `State` holds what it stores. `run` serves several extensions until a signal; `kaa_ext.testing` drives
them in tests. docs/extensions.md shows all of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaa_ext.sdk.connectivity import Connectivity
    from kaa_ext.sdk.errors import ExtensionError, NotDelivered, PayloadTooLarge, StateUnavailable
    from kaa_ext.sdk.extension import Extension
    from kaa_ext.sdk.handlers import CallNext, Middleware
    from kaa_ext.sdk.requests import Request, Response
    from kaa_ext.sdk.runner import run
    from kaa_ext.sdk.state import State

__all__ = [
    "CallNext",
    "Connectivity",
    "Extension",
    "ExtensionError",
    "Middleware",
    "NotDelivered",
    "PayloadTooLarge",
    "Request",
    "Response",
    "State",
    "StateUnavailable",
    "run",
]

_MODULES = {
    "Connectivity": "kaa_ext.sdk.connectivity",
    "ExtensionError": "kaa_ext.sdk.errors",
    "NotDelivered": "kaa_ext.sdk.errors",
    "PayloadTooLarge": "kaa_ext.sdk.errors",
    "StateUnavailable": "kaa_ext.sdk.errors",
    "Extension": "kaa_ext.sdk.extension",
    "CallNext": "kaa_ext.sdk.handlers",
    "Middleware": "kaa_ext.sdk.handlers",
    "Request": "kaa_ext.sdk.requests",
    "Response": "kaa_ext.sdk.requests",
    "run": "kaa_ext.sdk.runner",
    "State": "kaa_ext.sdk.state",
}
"""The modules of the public names. They are imported when they are used: it takes half a second."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
