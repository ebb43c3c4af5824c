"""Imports nats-py without aiohttp, which takes a tenth of a second.

nats-py needs aiohttp for WebSocket alone, and does without where it is not installed. No command takes a WebSocket URL.
"""

import sys
from types import ModuleType
from typing import cast

if "nats.aio.transport" not in sys.modules and "aiohttp" not in sys.modules:
    sys.modules["aiohttp"] = cast("ModuleType", None)
    try:
        import nats.aio.client  # noqa: F401
    finally:
        del sys.modules["aiohttp"]
