"""One replica as the others and operators see it: answers requests that come over NATS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog

from kaa_gateway.fleet import operations
from kaa_gateway.fleet.operations import (
    Done,
    Drain,
    EndSession,
    GetStatus,
    ListSessions,
    Request,
    Sessions,
    Shed,
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

    def end_session(self, request: EndSession) -> Done:
        """End a session."""
        ...


class Member:
    """Answers for `replica` from the start of `control` on."""

    def __init__(self, control: Control, instance: str, replica_id: str, replica: Replica) -> None:
        control.answer(
            operations.to_all(instance, GetStatus), self._answerer(GetStatus, lambda _: replica.status())
        )
        kinds: tuple[tuple[type[Request], Callable[[Any], Struct]], ...] = (
            (GetStatus, lambda _: replica.status()),
            (Drain, replica.drain),
            (Shed, replica.shed),
            (ListSessions, replica.list_sessions),
            (EndSession, replica.end_session),
        )
        for kind, act in kinds:
            control.answer(operations.to_one(replica_id, kind), self._answerer(kind, act))

    def _answerer(self, kind: type[Request], act: Callable[[Any], Struct]) -> Callable[[bytes], bytes]:
        def answer(datum: bytes) -> bytes:
            try:
                request = operations.decode(kind, datum)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                return operations.encode(operations.Refused(error=str(error)))
            if kind is not GetStatus and kind is not ListSessions:
                log.info("request of an operator", kind=kind.__name__)
            return operations.encode(act(request))

        return answer
