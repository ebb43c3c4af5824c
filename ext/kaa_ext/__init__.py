"""Kaa extension services: the SDK for the other side of 4/ESP, and the reference services.

The SDK is `Extension` with `Request`, `Response` and `ExtensionError`, `State` for what is kept, and testing.py; `run`
keeps several extensions going until a signal. dcx, tsx and echo are services built on it, `kaa-ext` (cli.py) runs them.
See docs/extensions.md.
"""

from kaa_ext.sdk.connectivity import Connectivity
from kaa_ext.sdk.errors import ExtensionError, NotDelivered, PayloadTooLarge, StateUnavailable
from kaa_ext.sdk.handlers import CallNext, Middleware
from kaa_ext.sdk.requests import Request, Response
from kaa_ext.sdk.runner import run
from kaa_ext.sdk.service import Extension
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
