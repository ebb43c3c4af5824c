"""Ends sessions and attachments whose credentials, tokens, tenants or application versions are no longer good.

Each method that may meet many of them is a generator, which its caller runs in slices (`kaa_gateway.slices`): it yields
after each session and attachment that it has looked at. Nothing here runs per message. What was revoked is told by
`kaa_gateway.identity` and by a new configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from kaa_gateway.kp.session import Attachment, Endpoint, Session
    from kaa_gateway.kp.sessions import Sessions

    Steps = Generator[int, None, int]


DISCONNECT_STEPS = 10
"""Steps that the end of a session counts for."""


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
    ) -> Steps:
        """End all attachments to an endpoint under these tokens; return how many that were.

        Cached routes to the endpoint are checked again before a session that is not attached uses them.
        """
        sessions = self._sessions
        endpoint = sessions.endpoints.get(endpoint_id.encode())
        if endpoint is None:
            return 0

        def end(session: Session, attachment: Attachment) -> int:
            token_id = attachment.identity.token_id
            if attachment.app_version in app_versions and (token_id is None or token_id in token_ids):
                return sessions.end_attachment(session, attachment)
            return 0

        count = yield from self._change(endpoint, end)
        if endpoint.watched and not endpoint.all_sessions() and endpoint.watched_as in app_versions:
            sessions.presence.forget(endpoint)  # its sessions have ended before
        return count

    def end_endpoint(self, endpoint_id: str, reason: str) -> Steps:
        """End all attachments to an endpoint, and the sessions that have no other; return how many attachments.

        Cached routes to the endpoint are checked again before they are used.
        """
        sessions = self._sessions
        endpoint = sessions.endpoints.get(endpoint_id.encode())
        if endpoint is None:
            return 0
        count = yield from self._change(endpoint, sessions.end_attachment, reason)
        if endpoint.watched:
            sessions.presence.forget(endpoint)  # its sessions have ended before
        return count

    def move_endpoint(
        self, endpoint_id: str, previous: bytes, app_version: bytes | None, reason: str
    ) -> Steps:
        """Put all attachments to an endpoint under another application version; return how many that were.

        None, for a version that the sessions cannot speak for, ends them. Cached routes are checked again.
        """
        sessions = self._sessions
        endpoint = sessions.endpoints.get(endpoint_id.encode())
        if endpoint is None:
            return 0

        def move(session: Session, attachment: Attachment) -> int:
            if attachment.app_version != previous:
                return 0
            if app_version is None:
                return sessions.end_attachment(session, attachment)
            return sessions.move_attachment(session, attachment, app_version)

        count = yield from self._change(endpoint, move, reason)
        if endpoint.watched and endpoint.watched_as == previous:
            sessions.presence.forget(endpoint)
        return count

    def _change(
        self, endpoint: Endpoint, change: Callable[[Session, Attachment], int], reason: str | None = None
    ) -> Steps:
        """Apply `change` to each attachment to an endpoint, and return the sum of what it returns.

        With a `reason`, sessions that are then left without endpoints end. Cached routes are checked again.
        """
        endpoint.revoke_routes()
        count = 0
        for session in endpoint.all_sessions():
            for attachment in self._sessions.attachments_to(endpoint, session):
                count += change(session, attachment)
                yield 1
            if reason is not None:
                yield from self._end_without_endpoints(session, reason)
        return count

    def _end_without_endpoints(self, session: Session, reason: str) -> Generator[int, None, None]:
        """End a session that speaks for no endpoint any more."""
        if not session.attachment_count() and self._sessions.get(session.key) is session:
            session.disconnect(reason)
            yield DISCONNECT_STEPS

    def end_clients(self, principals: Collection[str], reason: str) -> Steps:
        """End the sessions of clients with these credentials; return how many."""
        count = 0
        for slot in range(self._sessions.slot_count()):
            session = self._sessions.at(slot)
            if session is not None and session.principal in principals:
                session.disconnect(reason)
                count += 1
                yield DISCONNECT_STEPS
            yield 1
        return count

    def end_tenant(self, tenant: str, app_versions: Collection[bytes], reason: str) -> Steps:
        """End the sessions of a tenant's clients and those attached to its application versions; return how many."""
        count = 0
        for slot in range(self._sessions.slot_count()):
            session = self._sessions.at(slot)
            if session is not None:
                detached = yield from self._detach(session, app_versions)
                if (detached or session.tenant == tenant) and self._sessions.get(session.key) is session:
                    session.disconnect(reason)
                    count += 1
                yield DISCONNECT_STEPS
            yield 1
        return count

    def withdraw(self, gone: Collection[bytes], reason: str) -> Steps:
        """End the use of application versions that are not configured any more; return how many sessions that ends.

        Sessions lose their endpoints of these versions; a session left without endpoints is closed.
        """
        count = 0
        for slot in range(self._sessions.slot_count() if gone else 0):
            session = self._sessions.at(slot)
            if session is not None:
                detached = yield from self._detach(session, gone)
                if detached and not session.attachment_count() and self._sessions.get(session.key) is session:
                    session.disconnect(reason)
                    count += 1
                yield DISCONNECT_STEPS
            yield 1
        return count

    def tokens_in_use(self) -> Generator[int, None, list[TokenUse]]:
        """Return all attachments, and have cached routes checked again before another session uses them."""
        for endpoint in self._sessions.endpoints.all():
            endpoint.revoke_routes()
            yield 1
        uses: list[TokenUse] = []
        for slot in range(self._sessions.slot_count()):
            session = self._sessions.at(slot)
            if session is not None:
                for attachment in session.all_attachments():
                    if not attachment.ended:
                        uses.append(
                            TokenUse(
                                session.key,
                                attachment.app_version,
                                attachment.token,
                                attachment.endpoint.endpoint_id,
                            )
                        )
                    yield 1
            yield 1
        return uses

    def end_use(self, key: int, app_version: bytes, token: bytes) -> None:
        """End a session's attachment under a token, if there still is one."""
        session = self._sessions.get(key)
        if session is not None:
            attachment = session.find_attachment(app_version, token)
            if attachment is not None:
                self._sessions.end_attachment(session, attachment)

    def _detach(self, session: Session, app_versions: Collection[bytes]) -> Generator[int, None, bool]:
        """End a session's attachments under application versions; return whether there were any."""
        detached = False
        for attachment in session.all_attachments():
            if attachment.app_version in app_versions:
                detached |= self._sessions.end_attachment(session, attachment)
            yield 1
        return detached
