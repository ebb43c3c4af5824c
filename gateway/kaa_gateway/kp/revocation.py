"""Ends sessions and attachments whose credentials, tokens, tenants or application versions are no longer good.

Nothing here runs per message. What was revoked is told by `kaa_gateway.identity` and by a new configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kaa_gateway.kp.session import Attachment, Session
    from kaa_gateway.kp.sessions import Sessions


class TokenUse(NamedTuple):
    """An attachment of a session, by what names it."""

    session_key: int
    app_version: bytes
    token: bytes
    endpoint_id: bytes


class Revocation:
    """Revokes what the sessions of a worker rest on."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def revoke_tokens(
        self, endpoint_id: str, app_versions: Collection[bytes], token_ids: Collection[str]
    ) -> int:
        """End all attachments to an endpoint under these tokens; return how many that were.

        Cached routes to the endpoint are checked again before a session that is not attached uses them.
        """
        endpoint = self._sessions.endpoints.get(endpoint_id.encode())
        if endpoint is None:
            return 0
        endpoint.revoke_routes()
        count = 0
        for session in list(endpoint.sessions):
            revoked = [
                attachment
                for attachment in _attachments(session)
                if attachment.endpoint is endpoint
                and attachment.app_version in app_versions
                and (attachment.identity.token_id is None or attachment.identity.token_id in token_ids)
            ]
            if revoked:
                self._sessions.end_attachments(session, revoked)
            count += len(revoked)
        if endpoint.watched and not endpoint.sessions and endpoint.watched_as in app_versions:
            self._sessions.presence.forget(endpoint)  # its sessions have ended before
        return count

    def end_clients(self, principals: Collection[str], reason: str) -> int:
        """End the sessions of clients with these credentials; return how many."""
        count = 0
        for session in self._all():
            if session.principal in principals:
                session.disconnect(reason)
                count += 1
        return count

    def end_tenant(self, tenant: str, app_versions: Collection[bytes], reason: str) -> int:
        """End the sessions of a tenant's clients and those attached to its application versions; return how many."""
        count = 0
        for session in self._all():
            if self._detach(session, app_versions) or session.tenant == tenant:
                session.disconnect(reason)
                count += 1
        return count

    def withdraw(self, changed: Collection[bytes], gone: Collection[bytes], reason: str) -> int:
        """Apply another configuration; return how many sessions that ends.

        Sessions lose the endpoints of application versions that are gone; a session left without endpoints is closed.
        All look their routes up again, because those of `changed` versions are not what they were.
        """
        if not changed and not gone:
            return 0
        count = 0
        for session in self._all():
            if self._detach(session, gone) and not session.attached:
                session.disconnect(reason)
                count += 1
        return count

    def tokens_in_use(self) -> list[TokenUse]:
        """Return all attachments, and have cached routes checked again before another session uses them."""
        for endpoint in self._sessions.endpoints.all():
            endpoint.revoke_routes()
        return [
            TokenUse(session.key, attachment.app_version, attachment.token, attachment.endpoint.endpoint_id)
            for session in self._all()
            for attachment in _attachments(session)
        ]

    def end_use(self, key: int, app_version: bytes, token: bytes) -> None:
        """End a session's attachment under a token, if there still is one."""
        session = self._sessions.get(key)
        if session is not None and session.attached is not None:
            attachment = session.attached.get((app_version, token))
            if attachment is not None:
                self._sessions.end_attachments(session, [attachment])

    def _all(self) -> Iterator[Session]:
        """Yield the sessions that are there; those that begin meanwhile may or may not be among them."""
        for slot in range(self._sessions.slot_count()):
            session = self._sessions.at(slot)
            if session is not None:
                yield session

    def _detach(self, session: Session, app_versions: Collection[bytes]) -> bool:
        """End a session's attachments under application versions; return whether there were any."""
        session.forget_route()
        ended = [each for each in _attachments(session) if each.app_version in app_versions]
        if ended:
            self._sessions.end_attachments(session, ended)
        return bool(ended)


def _attachments(session: Session) -> list[Attachment]:
    return [] if session.attached is None else list(session.attached.values())
