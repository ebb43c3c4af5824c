"""Kaa extension services: the SDK for the other side of 4/ESP, and the reference services.

The SDK is `Extension` with `Request`, `Response` and `ExtensionError`; `run` keeps several extensions going
until a signal. dcx, tsx and echo are services built on it, `kaa-ext` (cli.py) runs them. See
docs/extensions.md.
"""

from ext.errors import ExtensionError, NotDelivered, PayloadTooLarge
from ext.requests import Request, Response
from ext.runner import run
from ext.service import Extension

__all__ = ["Extension", "ExtensionError", "NotDelivered", "PayloadTooLarge", "Request", "Response", "run"]
