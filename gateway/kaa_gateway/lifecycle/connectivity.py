"""9/ELCE connectivity events: which endpoints this replica can reach, and which it can reach no longer.

Changes are gathered for a short window, so that a client which speaks for many endpoints is one event, and a
reconnect storm a few. Per endpoint, events keep their order.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from kaa_gateway.bus.elce import CONNECTED_EVENT, DISCONNECTED_EVENT, event_subject

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control

WINDOW = 0.1
"""Seconds for which changes are gathered."""
ENTRY_OVERHEAD = 4
"""Bytes of an endpoint in an event beside the two names, at most: their lengths."""


class Listener(Protocol):
    """Who else wants to know which endpoints come and go."""

    def appeared(self, endpoint_id: str, app_version: str, /) -> None:
        """An endpoint has its first connection to this replica."""
        ...

    def disappeared(self, endpoint_id: str, app_version: str, /) -> None:
        """Its last connection has ended."""
        ...


class Connectivity:
    """Publishes connected and disconnected events. The sessions of kp call it."""

    def __init__(self, control: Control, instance: str, replica_id: str) -> None:
        self._control = control
        self._replica_id = replica_id
        self._subjects = {
            connected: event_subject(instance, connected=connected) for connected in (True, False)
        }
        self._changes: dict[bool, dict[str, str]] = {True: {}, False: {}}
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: list[Listener] = []

    def add_listener(self, listener: Listener) -> None:
        """Tell another of each change."""
        self._listeners.append(listener)

    def appeared(self, endpoint_id: str, app_version_name: str) -> None:
        """Report that an endpoint has its first connection to this replica."""
        self._add(True, endpoint_id, app_version_name)
        for listener in self._listeners:
            listener.appeared(endpoint_id, app_version_name)

    def disappeared(self, endpoint_id: str, app_version_name: str) -> None:
        """Report that an endpoint's last connection to this replica has ended."""
        self._add(False, endpoint_id, app_version_name)
        for listener in self._listeners:
            listener.disappeared(endpoint_id, app_version_name)

    def _add(self, connected: bool, endpoint_id: str, app_version_name: str) -> None:
        size = len(endpoint_id.encode()) + len(app_version_name.encode()) + ENTRY_OVERHEAD
        if endpoint_id in self._changes[not connected] or self._size + size > self._control.event_size_max:
            self.flush()
        self._changes[connected][endpoint_id] = app_version_name
        self._size += size
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW, self.flush)

    def flush(self) -> None:
        """Publish the gathered changes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._size = 0
        for connected, event in ((False, DISCONNECTED_EVENT), (True, CONNECTED_EVENT)):
            endpoints = self._changes[connected]
            if endpoints:
                self._changes[connected] = {}
                datum = event.encode(endpoints=endpoints, originatorReplicaId=self._replica_id)
                self._control.publish_event(self._subjects[connected], datum)
