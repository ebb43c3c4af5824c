"""Requests to other services and their answers: the targeted messages of 3/ISM.

`Requester` asks; answers come on the subject of this replica. `serve` answers the requests of others.

Source: 3/ISM "Inter-Service Messaging", session affinity.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from kaa_gateway.bus import subjects
from kaa_gateway.bus.codes import NO_RESPONDERS
from kaa_gateway.bus.messages import NULLABLE_STRING, Exchange, MessageType
from nats.aio.msg import Msg

from kaa_ext.sdk.errors import ExtensionError

if TYPE_CHECKING:
    from kaa_ext.sdk.extension import Extension

Fields: TypeAlias = dict[str, Any]
"""The fields of a request or an answer, by their names in the RFC."""


class Requester:
    """Sends requests and finds their answers by correlation ID.

    `answer` is the message type that arrives on `kaa.v1.replica.<replica ID>.<protocol>.<answer_name>`. Each handler
    waits for one request at a time, so the limit of handlers bounds the outstanding requests as well.
    """

    def __init__(self, extension: "Extension", protocol: str, answer_name: str, answer: MessageType) -> None:
        self._extension = extension
        self._answer = answer
        self._reply = subjects.replica(extension.replica_id, protocol, answer_name)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        extension.subscribe(self._reply, self._receive, answers=True)

    async def ask(self, subject: str, kind: MessageType, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Send a request of this type and return the fields of its answer.

        Raise ExtensionError 503 if nobody subscribes to the subject, 504 if no answer arrives in time.
        """
        correlation_id = str(uuid4())
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = answer
        try:
            datum = kind.encode(correlation_id=correlation_id, timeout=timeout_s, **fields)
            await self._extension.publish(subject, datum, self._reply)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise ExtensionError(504, "A service behind this one did not answer in time") from error
        finally:
            del self._waiting[correlation_id]

    def _receive(self, message: Msg) -> None:
        if is_no_responders(message):
            # NATS does not say which request it means. All go to the same service, so all of them fail.
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ExtensionError(503, "A service behind this one is not running"))
            return
        fields = self._answer.decode(message.data)
        waiting = self._waiting.get(fields["correlationId"])
        if waiting is not None and not waiting.done():
            waiting.set_result(fields)


def serve(
    extension: "Extension", protocol: str, exchange: Exchange, answer: Callable[[Fields], Awaitable[Fields]]
) -> None:
    """Answer the requests of an exchange on one of the replicas.

    `answer` gets the fields of a request and returns those of the answer; what must be given and is left out is null.
    """
    fields_of_answer = exchange.answer.type.schema["fields"]
    nullable = [field["name"] for field in fields_of_answer if field["type"] == NULLABLE_STRING]

    async def receive(message: Msg) -> None:
        request = exchange.request.type.decode(message.data)
        if message.reply and not extension.has_expired(request):
            fields: Fields = {**dict.fromkeys(nullable), **await answer(request)}
            datum = exchange.answer.type.encode(correlation_id=request["correlationId"], **fields)
            await extension.publish(message.reply, datum)

    subject = subjects.service(extension.name, protocol, exchange.request.subject)
    extension.subscribe(subject, receive, shared=True)


def is_no_responders(message: Msg) -> bool:
    """Return whether this is the report of NATS, on a reply-to, that nobody subscribes to the request's subject."""
    return bool(message.headers) and (message.headers or {}).get("Status") == NO_RESPONDERS
