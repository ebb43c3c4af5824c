"""What a worker tells the presence bucket about its endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.fleet.presence import PresenceWriter, Seen

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.config import Config
    from kaa_gateway.kp.sessions import Sessions
    from kaa_gateway.lifecycle.connectivity import Connectivity
    from kaa_gateway.lifecycle.traffic import TrafficReports

UNKNOWN = "unknown"
"""The protocol of an endpoint that counts as connected after its last session has ended."""


def make_presence(
    config: Config,
    control: Control,
    replica_id: str,
    sessions: Sessions,
    connectivity: Connectivity,
    traffic: TrafficReports | None,
) -> PresenceWriter | None:
    """Return the writer of a worker's entries, None if the bucket is not wanted. It hears of the events of 9/ELCE."""
    if not config.events.presence:
        return None
    writer = PresenceWriter(
        control,
        config.service.instance.name,
        replica_id,
        lease=config.events.presence_lease,
        copies=config.events.presence_copies,
        look=lambda endpoint_id: look(sessions, endpoint_id),
        everyone=lambda: [
            each.endpoint_id.decode() for each in sessions.endpoints.all() if each.present_count
        ],
    )
    connectivity.add_listener(writer)
    if traffic is not None:
        traffic.add_listener(writer.heard)
    return writer


def look(sessions: Sessions, endpoint_id: str) -> Seen | None:
    """Return what is known of an endpoint, None if it is not connected."""
    endpoint = sessions.endpoints.get(endpoint_id.encode())
    if endpoint is None or not endpoint.present_count:
        return None
    found: Seen | None = None
    for session in endpoint.all_sessions():
        attachment = endpoint.latest_attachment(session)
        if attachment is None:
            continue
        shown = session.describe()
        peer = shown.get("peer")
        family = None if peer is None else "ipv6" if peer.startswith("[") else "ipv4"
        found = Seen(attachment.app_version.decode(), shown["protocol"], family, shown["since"])
        if shown["online"]:
            break
    if found is None and endpoint.watched_as is not None:
        return Seen(endpoint.watched_as.decode(), UNKNOWN, None, "")
    return found
