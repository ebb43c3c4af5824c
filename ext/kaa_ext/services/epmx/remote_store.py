"""The metadata that another repository has, such as Kaa's endpoint register.

A change reads the metadata, and then sends the difference as a JSON Patch that the repository makes only if the
metadata are still the same. The repository publishes the events of 15/EME.

Source: 19/EPMMP "Endpoint Metadata Management Protocol", client; RFC 6902 "JSON Patch".
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import Exchange

from kaa_ext.messages import epmmp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.targeted import Fields, Requester
from kaa_ext.services.epmx.metadata import Metadata
from kaa_ext.services.epmx.store import Order, Wanted

ATTEMPTS = 5
"""Attempts of a change while others change the metadata of the same endpoint."""
PRECONDITION_FAILED = 412

Ask: TypeAlias = Callable[[Exchange, Fields], Awaitable[Fields]]
"""Sends a request to the repository, and returns its answer."""

_metadata = payloads.decoder(Metadata)


def asking(extension: Extension, repository: str, timeout_s: float) -> Ask:
    """Return a function that asks a repository instance over an extension. The repository has `timeout_s` to answer."""
    requesters = {
        exchange.request.subject: Requester(
            extension, epmmp.PROTOCOL, exchange.answer.subject, exchange.answer.type
        )
        for exchange in (epmmp.GET, epmmp.GET_KEYS, epmmp.PATCH)
    }

    async def ask(exchange: Exchange, request: Fields) -> Fields:
        kind = exchange.request
        subject = subjects.service(repository, epmmp.PROTOCOL, kind.subject)
        return await requesters[kind.subject].ask(subject, kind.type, timeout_s, **request)

    return ask


class RemoteStore:
    """The metadata of another repository, which `ask` sends requests to."""

    def __init__(self, ask: Ask) -> None:
        self._send = ask
        self._latest: dict[str, asyncio.Task[None]] = {}
        """The change of each endpoint that was ordered last, until it is made."""

    async def read(self, wanted: Sequence[Wanted]) -> list[Metadata | ExtensionError]:
        """Ask for the wanted keys of endpoints."""
        answers = await self._ask_all(
            epmmp.GET,
            [
                {"endpointId": endpoint_id, "include": keys or [], "includeMetadata": True}
                for endpoint_id, keys in wanted
            ],
        )
        return [each if isinstance(each, ExtensionError) else _metadata_in(each) for each in answers]

    async def keys(self, endpoint_ids: Sequence[str]) -> list[list[str] | ExtensionError]:
        """Ask for the metadata keys of endpoints."""
        answers = await self._ask_all(epmmp.GET_KEYS, [{"endpointId": each} for each in endpoint_ids])
        return [each if isinstance(each, ExtensionError) else each["keys"] for each in answers]

    async def change_all(self, orders: Sequence[Order]) -> list[ExtensionError | None]:
        """Have the repository make changes."""
        results = await asyncio.gather(*map(self._begin, orders), return_exceptions=True)
        errors: list[ExtensionError | None] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ExtensionError):
                raise result
            errors.append(result)
        return errors

    def _begin(self, order: Order) -> asyncio.Task[None]:
        """Begin a change, which is made after those that were ordered before it for the same endpoint."""
        endpoint_id = order.endpoint_id
        change = asyncio.create_task(self._change(order, self._latest.get(endpoint_id)))
        self._latest[endpoint_id] = change

        def forget(done: asyncio.Task[None]) -> None:
            if self._latest.get(endpoint_id) is done:
                del self._latest[endpoint_id]

        change.add_done_callback(forget)
        return change

    async def _change(self, order: Order, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        for _ in range(ATTEMPTS):
            found = await self._ask(
                epmmp.GET, {"endpointId": order.endpoint_id, "include": [], "includeMetadata": True}
            )
            order.change(_metadata_in(found))
            patch = patch_of(order.change.before, order.change.after)
            if not patch:
                return
            try:
                await self._ask(
                    epmmp.PATCH,
                    {
                        "endpointId": order.endpoint_id,
                        "ifMatch": found["eTag"],
                        "patch": payloads.encode(patch),
                    },
                )
            except ExtensionError as error:
                if error.status_code != PRECONDITION_FAILED:
                    raise
            else:
                return
        raise ExtensionError(503, "The metadata are changed by too many at once")

    async def _ask_all(self, exchange: Exchange, requests: Sequence[Fields]) -> list[Fields | ExtensionError]:
        """Return the answer to each request, or its error. Equal requests are sent once."""
        keys = [payloads.encode(request) for request in requests]
        unique = dict(zip(keys, requests, strict=True))
        answers = await asyncio.gather(
            *(self._ask(exchange, request) for request in unique.values()), return_exceptions=True
        )
        by_key: dict[bytes, Fields | ExtensionError] = {}
        for key, answer in zip(unique, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, ExtensionError):
                raise answer
            by_key[key] = answer
        return [by_key[key] for key in keys]

    async def _ask(self, exchange: Exchange, request: Fields) -> Fields:
        """Return the answer of the repository. Raise ExtensionError with its status if that is no success."""
        answer = await self._send(exchange, request)
        status: int = answer["statusCode"]
        if not 200 <= status <= 299:
            known = 400 <= status <= 499
            raise ExtensionError(
                status if known else 502, answer["reasonPhrase"] or "The repository of metadata has failed"
            )
        return answer


def patch_of(before: Metadata, after: Metadata) -> list[dict[str, Any]]:
    """Return the JSON Patch that makes metadata what they are to be."""
    removed = [{"op": "remove", "path": _pointer(key)} for key in before if key not in after]
    added = [
        {"op": "add", "path": _pointer(key), "value": value}
        for key, value in after.items()
        if key not in before or bytes(before[key]) != bytes(value)
    ]
    return removed + added


def _pointer(key: str) -> str:
    """Return the JSON Pointer (RFC 6901) of a key of an object."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _metadata_in(answer: Fields) -> Metadata:
    """Return the metadata in an answer. Raise ExtensionError 502 if they are not a JSON object."""
    try:
        return _metadata(answer["payload"] or b"{}")
    except ExtensionError as error:
        raise ExtensionError(502, "The repository has sent metadata that are not a JSON object") from error
