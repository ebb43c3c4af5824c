"""epts, endpoint time series: a 13/DSTP receiver that keeps data samples in a JetStream stream.

A batch is confirmed when the stream has stored it. Transmitters in the same process hand their samples over directly
(see local_receivers.py). `kaa-ext data` reads the stream on its own; no replica of epts need
run for that.

Stream `<instance>-samples`, subject `<instance>.samples.<application version>.<endpoint ID>`, both escaped as in
kaa_ext.sdk.state; each message is a `Batch` in JSON.

Source: 13/DSTP "Data Sample Transmission Protocol", receiver.
"""

from collections.abc import Sequence
from functools import lru_cache, partial

import msgspec
import nats.errors
from kaa_gateway.bus import subjects
from kaa_gateway.bus.codes import STREAM_NAME_IN_USE
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.errors import MalformedAvro
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError

from kaa_ext.messages import dstp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import NotDelivered, StateUnavailable, text_of
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.publisher import Publication
from kaa_ext.sdk.state import escaped
from kaa_ext.services.local_receivers import LocalReceivers, Outcome, Receiver, Samples

ANY = "*"
SUBJECTS_MAX = 65_536
"""Endpoints whose subject is remembered."""
STORED = Outcome(200)
NOT_STORED = Outcome(503, "Data samples could not be kept")
UNSUPPORTED = Outcome(415, "Only JSON is kept")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The instances whose samples are kept, for how many seconds, and how many bytes; the oldest are removed first."""

    transmitters: frozenset[str] = frozenset({"dcx"})
    retention: float = 7 * 24 * 3600.0
    max_bytes: int = 1024**3

    def __post_init__(self) -> None:
        if not self.transmitters or not all(map(subjects.NAME.fullmatch, self.transmitters)):
            raise ValueError("transmitters: expected names of service instances")
        if self.retention <= 0 or self.max_bytes <= 0:
            raise ValueError("retention and max-bytes: expected numbers above 0")


class Batch(msgspec.Struct, rename="camel"):
    """The samples of one message of a device. `timestamp` is the UNIX time in milliseconds of its arrival."""

    timestamp: int
    app_version_name: str
    endpoint_id: str
    samples: list[msgspec.Raw]


def stream_name(instance: str) -> str:
    """Return the name of a receiver instance's stream."""
    return f"{instance}-samples"


def stream_subject(instance: str, app_version_name: str = ANY, endpoint_id: str = ANY) -> str:
    """Return the subject of an endpoint's samples; ANY stands for all versions or endpoints."""
    version, endpoint = (part if part == ANY else escaped(part) for part in (app_version_name, endpoint_id))
    return f"{instance}.samples.{version}.{endpoint}"


class Storage:
    """The service of an instance."""

    def __init__(self, instance: str, settings: Settings) -> None:
        self._instance = instance
        self._settings = settings
        self._subject = lru_cache(SUBJECTS_MAX)(partial(stream_subject, instance))

    async def make_stream(self, extension: Extension) -> None:
        """Make the stream if it does not exist."""
        try:
            await extension.jetstream().add_stream(
                name=stream_name(self._instance),
                subjects=[stream_subject(self._instance)],
                max_age=self._settings.retention,
                max_bytes=self._settings.max_bytes,
                discard=api.DiscardPolicy.OLD,
            )
        except (nats.errors.Error, NotDelivered) as error:
            # A stream that exists with other limits is the operator's.
            if not (isinstance(error, APIError) and error.err_code == STREAM_NAME_IN_USE):
                raise StateUnavailable(text_of(error)) from error

    async def store(self, extension: Extension, batch: Sequence[Samples]) -> list[Outcome]:
        """Store samples, and return when the stream has them: 200, or 503 if it may not have them."""
        now, subject = now_ms(), self._subject
        publications = [
            Publication(
                subject(version, endpoint),
                payloads.encode(Batch(now, version, endpoint, [msgspec.Raw(each) for each in samples])),
                {api.Header.MSG_ID.value: id_},
            )
            for id_, version, endpoint, samples in batch
        ]
        stored = await extension.publisher.publish_all(publications)
        return [STORED if isinstance(each, int) else NOT_STORED for each in stored]


def register(
    extension: Extension,
    settings: Settings = Settings(),  # noqa: B008 - it is immutable
    local: LocalReceivers | None = None,
) -> None:
    """Make the extension a receiver of data samples. `local` has the transmitters of this process."""
    storage = Storage(extension.name, settings)

    async def make_stream() -> None:
        await storage.make_stream(extension)

    async def receive(messages: list[Msg]) -> None:
        """Store the samples of events together, and confirm each."""
        batch: list[Samples] = []
        stored: list[Msg] = []
        for message in messages:
            try:
                event = dstp.DATA_SAMPLES_EVENT.decode(message.data)
            except MalformedAvro as error:
                extension.note_failure(error, message.subject)
                continue
            if extension.has_expired(event):
                continue
            if event["contentType"] != dstp.JSON:
                await confirm(message, event["correlationId"], UNSUPPORTED)
                continue
            stored.append(message)
            batch.append(
                Samples(
                    event["correlationId"], event["appVersionName"], event["endpointId"], event["dataSamples"]
                )
            )
        for message, samples, outcome in zip(
            stored, batch, await storage.store(extension, batch), strict=True
        ):
            await confirm(message, samples.id, outcome)

    async def confirm(message: Msg, id_: str, outcome: Outcome) -> None:
        if message.reply:
            processed = dstp.DATA_SAMPLES_PROCESSED.encode(
                correlation_id=id_,
                receiverServiceInstanceName=extension.name,
                statusCode=outcome.status_code,
                reasonPhrase=outcome.reason_phrase,
            )
            await extension.publish(message.reply, processed)

    extension.on_start(make_stream)
    receiver = Receiver(storage.make_stream, storage.store)
    for transmitter in settings.transmitters:
        if local is None or not local.add(transmitter, extension.name, receiver):
            extension.subscribe_batch(dstp.event_subject(transmitter), receive, shared=True)
