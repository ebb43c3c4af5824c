"""What other services tell of endpoints and tenants: 9/ELCE lifecycle events and 21/TLE, from any originator.

What lives here: subscriptions, and reading the events. What does not: what follows from them
(`kaa_gateway.identity.service`), and revocations of tokens and credentials, which the providers receive.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events"; 21/TLE "Tenant Lifecycle Events".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import structlog

from kaa_gateway.bus import elce, tle
from kaa_gateway.bus.messages import is_expired
from kaa_gateway.errors import MalformedAvro

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.bus.control import Control
    from kaa_gateway.bus.messages import MessageType

ANY = "*"

log = structlog.get_logger("gateway.identity")


class Listener(Protocol):
    """Acts on the events."""

    def end_endpoint(self, endpoint_id: str) -> None:
        """Handle the end of an endpoint's registration."""

    def move_endpoint(self, endpoint_id: str, previous: str, app_version: str) -> None:
        """Handle the change of an endpoint from one application version to another."""

    def end_tenant(self, tenant: str) -> None:
        """Handle the end of a tenant."""

    def recheck_clients(self) -> None:
        """Handle a change of a tenant."""


def subscribe(control: Control, listener: Listener) -> None:
    """Call the listener for each event, from `Control.start` on."""
    _subscribe(
        control,
        elce.lifecycle_subject(ANY, elce.UNREGISTERED),
        elce.UNREGISTERED_EVENT,
        lambda event: listener.end_endpoint(event["endpointId"]),
    )
    _subscribe(
        control,
        elce.lifecycle_subject(ANY, elce.APP_VERSION_UPDATED),
        elce.APP_VERSION_UPDATED_EVENT,
        lambda event: listener.move_endpoint(
            event["endpointId"], event["previousAppVersionName"], event["appVersionName"]
        ),
    )
    _subscribe(
        control,
        tle.event_subject(ANY, "unregistered"),
        tle.TENANT_UNREGISTERED,
        lambda event: listener.end_tenant(event["tenantId"]),
    )
    _subscribe(
        control,
        tle.event_subject(ANY, "updated"),
        tle.TENANT_UPDATED,
        lambda event: listener.recheck_clients(),
    )


def _subscribe(
    control: Control, subject: str, kind: MessageType, handle: Callable[[dict[str, Any]], None]
) -> None:
    def receive(subject: str, datum: bytes) -> None:
        try:
            event = kind.decode(datum)
        except MalformedAvro:
            log.warning("event dropped: malformed", subject=subject)
            return
        if is_expired(event):
            log.warning("event dropped: expired", subject=subject)
            return
        handle(event)

    control.subscribe(subject, receive)
