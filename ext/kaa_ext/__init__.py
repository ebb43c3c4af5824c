"""Extension services for the Kaa device gateway: the SDK, the reference services, and the command `kaa-ext`.

A service is an `Extension` whose handlers take a `Request` and return a value or a `Response`, or raise an
`ExtensionError`; `State` holds what it stores. `run` serves several extensions until a signal; `kaa_ext.testing` drives
them in tests. docs/extensions.md shows all of it.
"""

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
