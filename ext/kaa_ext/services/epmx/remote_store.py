"""The metadata that another repository has, such as Kaa's endpoint register.

A change reads the metadata, and then sends the difference as a JSON Patch that the repository makes only if the
metadata are still the same. Changes of one endpoint that wait for each other share one patch. The repository publishes
the events of 15/EME.

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
from kaa_ext.services.epmx.metadata import Change, Metadata
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


class _Change:
    """A change that waits for its turn, and its result: None, or the error."""

    __slots__ = ("change", "error", "result")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.error: ExtensionError | None = None
        self.result: asyncio.Future[ExtensionError | None] = asyncio.get_running_loop().create_future()

    def apply(self, metadata: Metadata) -> Metadata:
        """Return metadata after the change; the same if it is refused."""
        try:
            after = self.change(metadata) or {}
        except ExtensionError as error:
            self.error = error
            return metadata
        self.error = None
        return after

    def finish(self, error: ExtensionError | None = None) -> None:
        """Give the result to the caller. `error` is that of the whole write."""
        if not self.result.done():
            self.result.set_result(error or self.error)


class RemoteStore:
    """The metadata of another repository, which `ask` sends requests to.

    Changes of an endpoint that wait while it is being written are written together.
    """

    def __init__(self, ask: Ask) -> None:
        self._send = ask
        self._changes: dict[str, list[_Change]] = {}
        """The changes of each endpoint that is being written which wait for the end of that."""
        self._writers: set[asyncio.Task[None]] = set()

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
        return list(await asyncio.gather(*map(self._submit, orders)))

    def _submit(self, order: Order) -> asyncio.Future[ExtensionError | None]:
        endpoint_id = order.endpoint_id
        change = _Change(order.change)
        if endpoint_id in self._changes:
            self._changes[endpoint_id].append(change)
        else:
            self._changes[endpoint_id] = [change]
            writer = asyncio.create_task(self._write(endpoint_id))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return change.result

    async def _write(self, endpoint_id: str) -> None:
        """Make the changes of an endpoint, as long as there are any."""
        changes: list[_Change] = []
        try:
            while changes := self._changes[endpoint_id]:
                self._changes[endpoint_id] = []
                try:
                    await self._write_together(endpoint_id, changes)
                except ExtensionError as error:
                    for each in changes:
                        each.finish(error)
        finally:
            for each in changes + self._changes.pop(endpoint_id):
                each.finish(ExtensionError(500, "The change has failed"))

    async def _write_together(self, endpoint_id: str, changes: Sequence[_Change]) -> None:
        """Make changes of an endpoint with one patch."""
        for _ in range(ATTEMPTS):
            found = await self._ask(
                epmmp.GET, {"endpointId": endpoint_id, "include": [], "includeMetadata": True}
            )
            before = after = _metadata_in(found)
            for each in changes:
                after = each.apply(after)
            patch = patch_of(before, after)
            try:
                if patch:
                    fields = {
                        "endpointId": endpoint_id,
                        "ifMatch": found["eTag"],
                        "patch": payloads.encode(patch),
                    }
                    await self._ask(epmmp.PATCH, fields)
            except ExtensionError as error:
                if error.status_code != PRECONDITION_FAILED:
                    raise
            else:
                for each in changes:
                    each.finish()
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
