"""Kaa extension services: the SDK for the other side of 4/ESP, and the reference services.

The SDK is `Extension` with `Request`, `Response` and `ExtensionError`, `State` for what is kept, and testing.py; `run`
keeps several extensions going until a signal. dcx, tsx and echo are services built on it, `kaa-ext` (cli.py) runs them.
See docs/extensions.md.
"""

from ext.elce import Connectivity
from ext.errors import ExtensionError, NotDelivered, PayloadTooLarge, StateUnavailable
from ext.handlers import CallNext, Middleware
from ext.requests import Request, Response
from ext.runner import run
from ext.service import Extension
from ext.state import State

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
