"""Receives data samples, stores them, and transmits their time series.

Source: 13/DSTP "Data Sample Transmission Protocol", receiver.
"""

from collections.abc import Sequence

import msgspec
from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.errors import MalformedAvro
from nats.aio.msg import Msg

from kaa_ext.messages import dstp
from kaa_ext.sdk.extension import Extension
from kaa_ext.services.epts.definitions import KEY, STATE, Definitions
from kaa_ext.services.epts.extraction import AUTO, NAME, Extraction, Series
from kaa_ext.services.epts.samples import STORED, Storage
from kaa_ext.services.epts.transmission import Transmission
from kaa_ext.services.local_receivers import LocalReceivers, Outcome, Receiver, Samples

UNSUPPORTED = Outcome(415, "Only JSON is kept")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The instances whose samples are kept, for how many seconds, and how many bytes; the oldest are removed first.

    `time_series` are found in samples and transmitted, by name; with `auto_extraction` also each number in a field. A
    batch is confirmed when `acknowledgements` receivers have answered each of its events, in `acknowledgement_timeout`
    seconds.
    """

    transmitters: frozenset[str] = frozenset({"dcx"})
    retention: float = 7 * 24 * 3600.0
    max_bytes: int = 1024**3
    time_series: dict[str, Series] = {}
    auto_extraction: bool = False
    acknowledgements: int = 0
    acknowledgement_timeout: float = 5.0

    def __post_init__(self) -> None:
        if not self.transmitters or not all(map(subjects.NAME.fullmatch, self.transmitters)):
            raise ValueError("transmitters: expected names of service instances")
        if self.retention <= 0 or self.max_bytes <= 0:
            raise ValueError("retention and max-bytes: expected numbers above 0")
        if not all(map(NAME.fullmatch, self.time_series)):
            raise ValueError(
                f"time-series: expected names of 1 to 128 letters, digits, dashes and underscores; {AUTO} is ours"
            )
        if self.acknowledgements < 0 or self.acknowledgement_timeout <= 0:
            raise ValueError(
                "acknowledgements: expected a number of receivers, and acknowledgement-timeout seconds above 0"
            )


class TimeSeriesService:
    """Handles batches of samples."""

    def __init__(self, storage: Storage, transmission: Transmission | None) -> None:
        self._storage = storage
        self._transmission = transmission

    async def receive(self, extension: Extension, batch: Sequence[Samples]) -> list[Outcome]:
        """Store samples, then transmit the time series of those that are stored. Return the outcome of each."""
        arrived = now_ms()
        outcomes = await self._storage.store(extension, batch, arrived)
        if self._transmission is not None:
            places = [place for place, outcome in enumerate(outcomes) if outcome is STORED]
            stored = [batch[place] for place in places]
            sent = await self._transmission.transmit(stored, arrived)
            for place, outcome in zip(places, sent, strict=True):
                outcomes[place] = outcome
        return outcomes


def register(
    extension: Extension,
    settings: Settings = Settings(),  # noqa: B008 - it is immutable
    local: LocalReceivers | None = None,
) -> None:
    """Make the extension a receiver of data samples. `local` has the transmitters of this process."""
    storage = Storage(extension.name, settings.retention, settings.max_bytes)
    service = TimeSeriesService(storage, _transmission(extension, settings))

    definitions = extension.state(STATE, Definitions)

    async def make_stream() -> None:
        await storage.make_stream(extension)

    async def define() -> None:
        """Tell others which time series there are."""
        await definitions.put(KEY, value=Definitions(settings.time_series, settings.auto_extraction))

    async def receive(messages: list[Msg]) -> None:
        """Handle the samples of events together, and confirm each."""
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
            stored, batch, await service.receive(extension, batch), strict=True
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
    extension.on_start(define)
    receiver = Receiver(storage.make_stream, service.receive)
    for transmitter in settings.transmitters:
        if local is None or not local.add(transmitter, extension.name, receiver):
            extension.subscribe_batch(dstp.event_subject(transmitter), receive, shared=True)


def _transmission(extension: Extension, settings: Settings) -> Transmission | None:
    if not settings.time_series and not settings.auto_extraction:
        return None
    extraction = Extraction(settings.time_series, auto=settings.auto_extraction)
    return Transmission(extension, extraction, settings.acknowledgements, settings.acknowledgement_timeout)
