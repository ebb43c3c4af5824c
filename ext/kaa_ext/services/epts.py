"""epts, endpoint time series: a 13/DSTP receiver that keeps data samples in a JetStream stream.

A batch is confirmed when the stream has stored it. `kaa-ext data` reads the stream on its own; no replica of epts need
run for that.

Stream `<instance>-samples`, subject `<instance>.samples.<application version>.<endpoint ID>`, both escaped as in
kaa_ext.sdk.state; each message is a `Batch` in JSON.

Source: 13/DSTP "Data Sample Transmission Protocol", receiver.
"""

import msgspec
import nats.errors
from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import is_expired, now_ms
from kaa_gateway.bus.streams import STREAM_NAME_IN_USE
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError

from kaa_ext.messages import dstp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import NotDelivered, StateUnavailable, text_of
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.state import escaped

ANY = "*"


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


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a receiver of data samples."""

    async def make_stream() -> None:
        try:
            await extension.jetstream().add_stream(
                name=stream_name(extension.name),
                subjects=[stream_subject(extension.name)],
                max_age=settings.retention,
                max_bytes=settings.max_bytes,
                discard=api.DiscardPolicy.OLD,
            )
        except (nats.errors.Error, NotDelivered) as error:
            # A stream that exists with other limits is the operator's.
            if not (isinstance(error, APIError) and error.err_code == STREAM_NAME_IN_USE):
                raise StateUnavailable(text_of(error)) from error

    async def receive(message: Msg) -> None:
        event = dstp.DATA_SAMPLES_EVENT.decode(message.data)
        if is_expired(event):
            return
        status_code, reason_phrase = await store(event)
        if message.reply:
            processed = dstp.DATA_SAMPLES_PROCESSED.encode(
                correlation_id=event["correlationId"],
                receiverServiceInstanceName=extension.name,
                statusCode=status_code,
                reasonPhrase=reason_phrase,
            )
            await extension.publish(message.reply, processed)

    async def store(event: dict[str, object]) -> tuple[int, str | None]:
        if event["contentType"] != dstp.JSON:
            return 415, "Only JSON is kept"
        version, endpoint = str(event["appVersionName"]), str(event["endpointId"])
        samples = event["dataSamples"]
        assert isinstance(samples, list)
        batch = Batch(now_ms(), version, endpoint, [msgspec.Raw(sample) for sample in samples])
        try:
            await extension.jetstream().publish(
                stream_subject(extension.name, version, endpoint),
                payloads.encode(batch),
                headers={api.Header.MSG_ID: str(event["correlationId"])},
            )
        except (nats.errors.Error, NotDelivered):
            return 503, "Data samples could not be kept"
        return 200, None

    extension.on_start(make_stream)
    for transmitter in settings.transmitters:
        extension.subscribe(dstp.event_subject(transmitter), receive, shared=True)
