"""dcx, data collection: 2/DCP from devices, 13/DSTP to the receivers of data samples.

A batch is answered with 200 when every receiver in `must-confirm` has confirmed it; without receivers there, when NATS
has taken the event.

Source: 2/DCP "Data Collection Protocol", 13/DSTP. Beyond them, as Kaa's own clients need it: the payload may be one
object, number or boolean instead of an array, and is then one sample; `/plain/<metric>` takes a single value.
"""

import asyncio
from uuid import uuid4

import msgspec
from kaa_gateway.bus import subjects
from nats.aio.msg import Msg

from kaa_ext.messages import dstp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError, PayloadTooLarge
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request
from kaa_ext.sdk.targeted import is_no_responders

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


class Confirmations:
    """The batches that wait for confirmations of receivers, one for each handler that waits."""

    def __init__(self, receivers: frozenset[str], timeout_s: float) -> None:
        self._receivers = receivers
        self._timeout_s = timeout_s
        self._missing: dict[str, tuple[set[str], asyncio.Future[None]]] = {}

    def expect(self, correlation_id: str) -> "asyncio.Future[None]":
        """Add an event that needs confirmations. Call this before the event is published."""
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing[correlation_id] = set(self._receivers), confirmed
        return confirmed

    async def wait(self, correlation_id: str, confirmed: "asyncio.Future[None]") -> None:
        """Return when all receivers have confirmed. Raise ExtensionError for a failure, or 504 at the timeout."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await confirmed
        except TimeoutError as error:
            missing, _ = self._missing[correlation_id]
            raise ExtensionError(504, f"Not confirmed in time by {', '.join(sorted(missing))}") from error

    def forget(self, correlation_id: str) -> None:
        """Remove an event."""
        self._missing.pop(correlation_id, None)

    def receive(self, message: Msg) -> None:
        """Handle the confirmation of a receiver, its failure, or the report of NATS that there is no receiver."""
        if is_no_responders(message):
            # The report does not name the event, but all events have one subject.
            for _, waiting in self._missing.values():
                if not waiting.done():
                    waiting.set_exception(ExtensionError(503, "No receiver of data samples is running"))
            return
        fields = dstp.DATA_SAMPLES_PROCESSED.decode(message.data)
        missing, confirmed = self._missing.get(fields["correlationId"], (set(), None))
        receiver = fields["receiverServiceInstanceName"]
        if confirmed is None or confirmed.done() or receiver not in missing:
            return
        status_code = fields["statusCode"]
        if not 200 <= status_code <= 299:
            status_code = status_code if 400 <= status_code <= 599 else 502
            confirmed.set_exception(ExtensionError(status_code, fields["reasonPhrase"]))
            return
        missing.discard(receiver)
        if not missing:
            confirmed.set_result(None)


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a data collection service."""
    event_subject = dstp.event_subject(extension.name)
    reply_subject = dstp.reply_subject(extension.replica_id)
    confirmations = Confirmations(settings.must_confirm, settings.confirmation_timeout)
    extension.subscribe(reply_subject, confirmations.receive, answers=True)

    @extension.handler("/json", respond="errors")
    async def collect(request: Request) -> None:
        await publish(request, data_samples(request.payload))

    @extension.handler("/plain/{metric}", respond="errors")
    async def collect_plain(request: Request) -> None:
        await publish(request, [plain_sample(request.parameters["metric"], request.payload)])

    async def publish(request: Request, samples: list[bytes]) -> None:
        if request.endpoint_id is None:
            raise ExtensionError(400, "Data samples need an endpoint")
        if not samples:
            return
        correlation_id = request.correlation_id
        wait = bool(settings.must_confirm) and request.request_id is not None
        if wait:
            # Not the ID of the request: NATS may deliver a request twice, and each event is confirmed by itself.
            correlation_id = str(uuid4())
            confirmed = confirmations.expect(correlation_id)
        event = dstp.DATA_SAMPLES_EVENT.encode(
            correlation_id=correlation_id,
            appVersionName=request.app_version_name,
            endpointId=request.endpoint_id,
            contentType=dstp.JSON,
            dataSamples=samples,
        )
        try:
            await extension.publish(event_subject, event, reply_subject)
            if wait:
                await confirmations.wait(correlation_id, confirmed)
        except PayloadTooLarge as error:
            raise ExtensionError(413, "Batch of data samples is too large") from error
        finally:
            confirmations.forget(correlation_id)
