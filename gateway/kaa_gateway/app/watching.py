"""Prints the messages of one endpoint as they pass through NATS, for `kaa-gateway sessions watch`.

The gateway has no part in it: NATS sends all messages of all extensions here, and those of the endpoint are printed. A
watcher that cannot keep up misses messages.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from kaa_gateway.bus import subjects
from kaa_gateway.errors import MalformedAvro
from kaa_gateway.wire import esp

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.bus.control import Control

PAYLOAD_SHOWN = 400
"""Bytes of a payload that are printed."""


class EndpointWatch:
    """Calls `show` with a line for each message of an endpoint, from the start of `control` on."""

    def __init__(self, control: Control, endpoint_id: str, show: Callable[[str], None]) -> None:
        self._endpoint_id = endpoint_id
        self._show = show
        control.subscribe(subjects.service("*", "esp", subjects.CLIENT_DATA), self._up)
        for whose in (subjects.service, subjects.replica):
            control.subscribe(whose("*", "esp", subjects.EXTENSION_DATA), self._down)

    def _up(self, subject: str, datum: bytes) -> None:
        try:
            data = esp.decode_client_data(datum)
        except MalformedAvro:
            return
        if data.endpoint_id == self._endpoint_id:
            request = "" if data.request_id is None else f" request {data.request_id}"
            self._line(">", f"{subject.split('.')[3]} {data.resource_path}{request}", data.payload)

    def _down(self, subject: str, datum: bytes) -> None:
        try:
            data = esp.decode_extension_data(datum)
        except MalformedAvro:
            return  # or an acknowledgement of JetStream
        if data.endpoint_id == self._endpoint_id:
            request = "push" if data.request_id is None else f"answer to {data.request_id}"
            text = f"{data.extension_instance_name} {data.resource_path} {request} {data.status_code}"
            self._line("<", text, data.payload)

    def _line(self, direction: str, text: str, payload: bytes | None) -> None:
        shown = (payload or b"")[:PAYLOAD_SHOWN]
        body = shown.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()
        self._show(f"{datetime.now():%H:%M:%S.%f}"[:12] + f" {direction} {text} {body}")
