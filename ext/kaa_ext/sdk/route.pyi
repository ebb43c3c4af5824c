"""A route. See route.pyx."""

from collections.abc import Callable
from typing import Any

from kaa_gateway.counters import Histogram

from kaa_ext.sdk.routes import Respond

class Route:
    pattern: str
    handler: Callable[[Any], Any]
    respond: Respond
    streams: bool
    batch: bool
    seconds: Histogram
    def __init__(
        self,
        pattern: str,
        handler: Callable[[Any], Any],
        respond: Respond,
        streams: bool = ...,
        batch: bool = ...,
    ) -> None: ...
    def statuses(self) -> dict[int, int]: ...
