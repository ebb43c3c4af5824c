"""dcx, data collection: 2/DCP from devices, 13/DSTP to the receivers of data samples.

A batch is answered with 200 when every receiver in `must-confirm` has confirmed it; without receivers there, when NATS
has taken the event. A receiver that runs in the same process gets the samples directly (see local_receivers.py). An
event has the correlation ID of its request, so that a receiver knows a batch that comes twice.

Source: 2/DCP "Data Collection Protocol", 13/DSTP. Beyond them, as Kaa's own clients need it: the payload may be one
object, number or boolean instead of an array, and is then one sample; `/plain/<metric>` takes a single value.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from kaa_gateway.bus import subjects
from nats.aio.msg import Msg

from kaa_ext.messages import dstp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError, NotDelivered, PayloadTooLarge
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request
from kaa_ext.sdk.targeted import is_no_responders
from kaa_ext.services.local_receivers import LocalReceivers, Outcome, Samples

METRIC_SIZE_MAX = 256
"""Characters in the name of a metric."""

_decode_batch = payloads.decoder(list[msgspec.Raw])
_decode_one = payloads.decoder(msgspec.Raw)
_JSON_SPACE = b" \t\r\n"
_NOT_SAMPLES = (b'"', b"n")
_COMPOSITE = (b"{", b"[")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """`must_confirm` names service instances of receivers; `confirmation_timeout` is in seconds."""

    must_confirm: frozenset[str] = frozenset()
    confirmation_timeout: float = 10.0

    def __post_init__(self) -> None:
        if not all(map(subjects.NAME.fullmatch, self.must_confirm)):
            raise ValueError("must-confirm: expected names of service instances")
        if self.confirmation_timeout <= 0:
            raise ValueError("confirmation-timeout: expected a number of seconds above 0")


def data_samples(payload: bytes) -> list[bytes]:
    """Return the samples in a payload, each as the JSON of the device. Raise ExtensionError 400 for other payloads."""
    if payload.lstrip(_JSON_SPACE).startswith(b"["):
        return [bytes(sample) for sample in _decode_batch(payload)]
    sample = bytes(_decode_one(payload))
    if sample.startswith(_NOT_SAMPLES):
        raise ExtensionError(400, "Expected an array, an object, a number or a boolean")
    return [sample]


def plain_sample(metric: str, payload: bytes) -> bytes:
    """Return the sample for a single value of a metric: a JSON number, boolean or string; other text is a string."""
    if len(metric) > METRIC_SIZE_MAX:
        raise ExtensionError(400, f"The name of a metric has at most {METRIC_SIZE_MAX} characters")
    if not payload.strip():
        raise ExtensionError(400, "Empty payload")
    try:
        value = bytes(_decode_one(payload))
        if value.startswith(_COMPOSITE):
            raise ExtensionError(400, "Expected one value; objects and arrays go to /json")
    except ExtensionError as error:
        if not error.reason_phrase.startswith("Invalid JSON"):
            raise
        value = payloads.encode(payload.decode())
    return b"{%s:%s}" % (payloads.encode(metric), value)


class Awaited:
    """An event that waits for confirmations, perhaps published twice: NATS may deliver a request again."""

    __slots__ = ("missing", "waiting")

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.waiting: set[asyncio.Future[Outcome]] = set()


class Confirmations:
    """The events that wait for confirmations of receivers, by their IDs."""

    def __init__(self, receivers: frozenset[str]) -> None:
        self._receivers = receivers
        self._events: dict[str, Awaited] = {}

    def expect(self, event_id: str, but: frozenset[str]) -> "asyncio.Future[Outcome]":
        """Add an event that all receivers `but` some must confirm. Call this before the event is published."""
        event = self._events.get(event_id)
        if event is None:
            event = self._events[event_id] = Awaited(set(self._receivers - but))
        confirmed: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        event.waiting.add(confirmed)
        return confirmed

    def forget(self, event_id: str, confirmed: "asyncio.Future[Outcome]") -> Outcome:
        """Wait for an event no longer. Return its outcome, 504 if there is none yet."""
        if confirmed.done():
            return confirmed.result()
        event = self._events[event_id]
        event.waiting.discard(confirmed)
        if not event.waiting:
            del self._events[event_id]
        return Outcome(504, f"Not confirmed in time by {', '.join(sorted(event.missing))}")

    def receive(self, message: Msg) -> None:
        """Handle the confirmation of a receiver, its failure, or the report of NATS that there is no receiver."""
        if is_no_responders(message):
            # The report does not name the event, but all events have one subject.
            for event_id in list(self._events):
                self._end(event_id, Outcome(503, "No receiver of data samples is running"))
            return
        fields = dstp.DATA_SAMPLES_PROCESSED.decode(message.data)
        event = self._events.get(fields["correlationId"])
        receiver = fields["receiverServiceInstanceName"]
        if event is None or receiver not in event.missing:
            return
        outcome = Outcome(fields["statusCode"], fields["reasonPhrase"])
        if _is_success(outcome):
            event.missing.discard(receiver)
            if event.missing:
                return
        self._end(fields["correlationId"], outcome)

    def _end(self, event_id: str, outcome: Outcome) -> None:
        for confirmed in self._events.pop(event_id).waiting:
            confirmed.set_result(outcome)


class Collection:
    """The service, on an extension."""

    def __init__(self, extension: Extension, settings: Settings, local: LocalReceivers) -> None:
        self._extension = extension
        self._must_confirm = settings.must_confirm
        self._timeout_s = settings.confirmation_timeout
        self._local = local.of(extension.name)
        self._event_subject = dstp.event_subject(extension.name)
        self._reply_subject = dstp.reply_subject(extension.replica_id)
        self._confirmations = Confirmations(settings.must_confirm)
        extension.subscribe(self._reply_subject, self._confirmations.receive, answers=True)
        extension.on_start(self._prepare)

    async def _prepare(self) -> None:
        for receiver in self._local.values():
            await receiver.prepare(self._extension)

    async def collect(
        self, requests: Sequence[Request], samples_of: Callable[[Request], list[bytes]]
    ) -> list[ExtensionError | None]:
        """Transmit the samples of requests. Return the error of each, or None."""
        errors: list[ExtensionError | None] = [None] * len(requests)
        places: list[int] = []
        batch: list[Samples] = []
        for place, request in enumerate(requests):
            try:
                samples = samples_of(request)
                if request.endpoint_id is None:
                    raise ExtensionError(400, "Data samples need an endpoint")
            except ExtensionError as error:
                errors[place] = error
                continue
            if samples:
                places.append(place)
                batch.append(
                    Samples(request.correlation_id, request.app_version_name, request.endpoint_id, samples)
                )
        if batch:
            answered = [requests[place].request_id is not None for place in places]
            for place, failure in zip(places, await self._transmit(batch, answered), strict=True):
                errors[place] = failure
        return errors

    async def _transmit(self, batch: list[Samples], answered: list[bool]) -> list[ExtensionError | None]:
        """Publish the events, hand the samples to local receivers, and wait for those that must confirm."""
        failures: list[ExtensionError | None] = [None] * len(batch)
        local = self._local
        elsewhere = self._must_confirm - local.keys()
        waiting: dict[int, asyncio.Future[Outcome]] = {}
        handed_over: list[int] = []
        try:
            for place, samples in enumerate(batch):
                reply = ""
                if elsewhere and answered[place]:
                    waiting[place] = self._confirmations.expect(samples.id, frozenset(local))
                    reply = self._reply_subject
                try:
                    await self._extension.publish(self._event_subject, _event(samples), reply)
                except PayloadTooLarge:
                    failures[place] = ExtensionError(413, "Batch of data samples is too large")
                except NotDelivered:
                    failures[place] = ExtensionError(503, "NATS does not take data samples")
                else:
                    handed_over.append(place)
                    continue
                if place in waiting:
                    self._confirmations.forget(samples.id, waiting.pop(place))
            for name, receiver in local.items():
                outcomes = await receiver.receive(self._extension, [batch[place] for place in handed_over])
                if name in self._must_confirm:
                    for place, outcome in zip(handed_over, outcomes, strict=True):
                        failures[place] = failures[place] or _failure(outcome)
            if waiting:
                await asyncio.wait(waiting.values(), timeout=self._timeout_s)
        finally:
            for place, confirmed in waiting.items():
                outcome = self._confirmations.forget(batch[place].id, confirmed)
                failures[place] = _failure(outcome) or failures[place]
        return failures


def _event(samples: Samples) -> bytes:
    return dstp.DATA_SAMPLES_EVENT.encode(
        correlation_id=samples.id,
        appVersionName=samples.app_version_name,
        endpointId=samples.endpoint_id,
        contentType=dstp.JSON,
        dataSamples=samples.samples,
    )


def _is_success(outcome: Outcome) -> bool:
    return 200 <= outcome.status_code <= 299


def _failure(outcome: Outcome) -> ExtensionError | None:
    """Return the error that a device gets for an outcome, None for success."""
    if _is_success(outcome):
        return None
    known = 400 <= outcome.status_code <= 599
    return ExtensionError(outcome.status_code if known else 502, outcome.reason_phrase)


def register(
    extension: Extension,
    settings: Settings = Settings(),  # noqa: B008 - it is immutable
    local: LocalReceivers | None = None,
) -> None:
    """Make the extension a data collection service. `local` has the receivers of this process."""
    service = Collection(extension, settings, local or LocalReceivers())

    @extension.batch("/json", respond="errors")
    async def collect(requests: list[Request]) -> list[ExtensionError | None]:
        return await service.collect(requests, lambda request: data_samples(request.payload))

    @extension.batch("/plain/{metric}", respond="errors")
    async def collect_plain(requests: list[Request]) -> list[ExtensionError | None]:
        return await service.collect(
            requests, lambda request: [plain_sample(request.parameters["metric"], request.payload)]
        )
