"""What operators see of the sessions of a worker, and the end that they can put to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from kaa_gateway.kp.session import Session
    from kaa_gateway.kp.sessions import Sessions


ENDPOINTS_PER_PAGE = 2_000


class Page(NamedTuple):
    """Sessions as (key, description), and the slot where the next page begins; None after the last."""

    sessions: list[tuple[int, dict[str, Any]]]
    next_slot: int | None


class Inspection:
    """Shows the sessions of a worker."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def page(
        self,
        slot: int,
        limit: int,
        scan: int,
        protocol: str | None,
        client_id: str | None,
        endpoint_id: str | None,
        size_max: int,
    ) -> Page:
        """Return at most `limit` sessions from a slot on, from no more than `scan` slots. None filters nothing.

        The page ends early when it shows ENDPOINTS_PER_PAGE endpoints: no device is served meanwhile. It also ends
        before the session with which its descriptions would take more than `size_max` bytes of JSON.
        """
        sessions = self._sessions
        speakers: set[Session] | None = None
        if endpoint_id is not None:
            endpoint = sessions.endpoints.get(endpoint_id.encode("utf-8", "surrogatepass"))
            if endpoint is None:
                return Page([], None)
            speakers = set(endpoint.all_sessions())
        end = min(sessions.slot_count(), slot + scan)
        found: list[tuple[int, dict[str, Any]]] = []
        endpoints = size = 0
        while slot < end and len(found) < limit and endpoints < ENDPOINTS_PER_PAGE:
            session = sessions.at(slot)
            if (
                session is not None
                and (protocol is None or session.protocol_name() == protocol)
                and (speakers is None or session in speakers)
                and (client_id is None or session.is_of(client_id))
            ):
                description = session.describe()
                size += len(msgspec.json.encode(description))
                if found and size > size_max:
                    break
                endpoints += len(description["endpoints"])
                found.append((session.key, description))
            slot += 1
        return Page(found, slot if slot < sessions.slot_count() else None)

    def describe(self, key: int) -> dict[str, Any] | None:
        """Return what an operator may see of a session; None if it has ended."""
        session = self._sessions.get(key)
        return None if session is None else session.describe()

    def disconnect(self, key: int, reason: str) -> bool:
        """End a session; return False if it has ended already."""
        session = self._sessions.get(key)
        if session is None:
            return False
        session.disconnect(reason)
        return True
