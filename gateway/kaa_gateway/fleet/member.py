"""One replica as the others and operators see it: answers their requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import structlog

from kaa_gateway.errors import UNDECODABLE
from kaa_gateway.fleet import operations
from kaa_gateway.fleet.operations import (
    Done,
    Drain,
    Endings,
    EndSession,
    GetStatus,
    ListEndings,
    ListSessions,
    Request,
    Sessions,
    Shed,
    ShowSession,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Struct

    from kaa_gateway.bus.control import Control

log = structlog.get_logger("gateway.fleet")


class Replica(Protocol):
    """What a replica can do."""

    def status(self) -> Status:
        """Return how it is."""
        ...

    def drain(self, request: Drain) -> Done:
        """Begin to drain."""
        ...

    def shed(self, request: Shed) -> Done:
        """Begin to send clients to other replicas."""
        ...

    def list_sessions(self, request: ListSessions) -> Sessions:
        """Return a page of sessions."""
        ...

    def show_session(self, request: ShowSession) -> Sessions:
        """Return one session, or none."""
        ...

    def end_session(self, request: EndSession) -> Done:
        """End a session."""
        ...

    def list_endings(self, request: ListEndings) -> Endings:
        """Return the newest connections that have ended."""
        ...


class Member:
    """Answers requests for `replica`, whose name is `replica_id`."""

    def __init__(self, replica_id: str, replica: Replica) -> None:
        self.replica_id = replica_id
        self.status = replica.status
        """Returns how it is."""
        kinds: tuple[tuple[type[Request], Callable[[Any], Struct]], ...] = (
            (GetStatus, lambda _: replica.status()),
            (Drain, replica.drain),
            (Shed, replica.shed),
            (ListSessions, replica.list_sessions),
            (ShowSession, replica.show_session),
            (EndSession, replica.end_session),
            (ListEndings, replica.list_endings),
        )
        self._answerers = {kind.__name__: self._answerer(kind, act) for kind, act in kinds}

    def serve(self, control: Control, instance: str) -> None:
        """Answer what comes over NATS, from the start of `control` on."""
        control.answer(operations.to_all(instance, GetStatus.__name__), self._answerers[GetStatus.__name__])
        for kind, answer in self._answerers.items():
            control.answer(operations.to_one(self.replica_id, kind), answer)

    def answer(self, kind: str, datum: bytes) -> bytes:
        """Return the answer to a request of this kind."""
        answer = self._answerers.get(kind)
        if answer is None:
            return operations.encode(operations.Refused(error=f"there is no request {kind!r}"))
        return answer(datum)

    def _answerer(self, kind: type[Request], act: Callable[[Any], Struct]) -> Callable[[bytes], bytes]:
        def answer(datum: bytes) -> bytes:
            try:
                request = operations.decode(kind, datum)
            except UNDECODABLE as error:
                return operations.encode(operations.Refused(error=str(error)))
            if kind in (Drain, Shed, EndSession):
                log.info("request of an operator", kind=kind.__name__)
            return operations.encode(act(request))

        return answer
