"""Every message on a NATS server, read by the schema that its RFC has for its subject."""

import io
import re
from collections import Counter
from types import TracebackType
from typing import Any, Self

import fastavro
from kaa_ext.messages import cdtp, cip, dstp, eme, epmmp, tstp
from kaa_gateway.bus import elce
from kaa_gateway.bus.flushing import flush
from kaa_gateway.fleet import messages as fleet
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.cluster import TRAFFIC_SCHEMA
from tests.support.schemas import OURS, rfc_schema

SERVICE = r"kaa\.v1\.(?:service|replica)\.[^.]+\."
EVENT = r"kaa\.v1\.events\.[^.]+\."
OWN = re.compile(rf"{SERVICE}{fleet.PROTOCOL}\.[^.]*|kaa\.v1\.replica\.[^.]+\.esp\.PushReceipt")
"""What gateways tell each other of sessions, and extensions of pushes, which is no part of Kaa."""
EPMMP = {
    "ep-metadata-get": ("endpoint-metadata-get", epmmp.GET),
    "ep-metadata-patch": ("endpoint-metadata-patch", epmmp.PATCH),
    "ep-metadata-keys-get": ("endpoint-metadata-keys-get", epmmp.GET_KEYS),
    "ep-metadata-key-update": ("endpoint-metadata-key-update", epmmp.UPDATE_KEY),
    "ep-metadata-key-batch-update": ("endpoint-metadata-key-batch-update", epmmp.UPDATE_KEYS),
    "ep-app-version-get": ("endpoints-app-version", epmmp.GET_APP_VERSIONS),
}

_KINDS: list[tuple[str, str, dict[str, Any]]] = [
    (rf"{SERVICE}esp\.ClientData", "0004-client-data", OURS["0004-client-data"]),
    (rf"{SERVICE}esp\.ExtensionData", "0004-extension-data", OURS["0004-extension-data"]),
    (rf"{SERVICE}cdtp\.request", "0006-config-request", cdtp.CONFIG_REQUEST.schema),
    (rf"{SERVICE}cdtp\.response", "0006-config-response", cdtp.CONFIG_RESPONSE.schema),
    (rf"{EVENT}endpoint\.config\.updated(?:\.[^.]+)?", "0006-config-updated", cdtp.CONFIG_UPDATED.schema),
    (rf"{EVENT}endpoint\.config\.applied(?:\.[^.]+)?", "0006-config-applied", cdtp.CONFIG_APPLIED.schema),
    (rf"{EVENT}endpoint\.connectivity\.connected", "0009-ep-connected", elce.CONNECTED_EVENT.schema),
    (rf"{EVENT}endpoint\.connectivity\.disconnected", "0009-ep-disconnected", elce.DISCONNECTED_EVENT.schema),
    (rf"{EVENT}endpoint\.traffic-reporting\.payload", "0009-ep-traffic-stats", TRAFFIC_SCHEMA),
    (rf"{EVENT}endpoint\.lifecycle\.registered", "0009-ep-registered", elce.REGISTERED_EVENT.schema),
    (rf"{EVENT}endpoint\.lifecycle\.unregistered", "0009-ep-unregistered", elce.UNREGISTERED_EVENT.schema),
    (rf"{SERVICE}cip\.command-request", "0012-command-invocation-request", cip.COMMAND_REQUEST.schema),
    (rf"{SERVICE}cip\.command-result", "0012-command-invocation-result", cip.COMMAND_RESULT.schema),
    (
        rf"{EVENT}endpoint\.data-collection\.data-samples-received",
        "0013-ep-data-samples-event",
        dstp.DATA_SAMPLES_EVENT.schema,
    ),
    (
        rf"{SERVICE}dstp\.DataSamplesProcessed",
        "0013-ep-data-samples-processed",
        dstp.DATA_SAMPLES_PROCESSED.schema,
    ),
    (
        rf"{EVENT}endpoint\.data-collection\.data-points-received\.[^.]+",
        "0014-ep-time-series-event",
        tstp.TIME_SERIES_EVENT.schema,
    ),
    (
        rf"{SERVICE}tstp\.TimeSeriesProcessed",
        "0014-ep-time-series-processed",
        tstp.TIME_SERIES_PROCESSED.schema,
    ),
    (rf"{EVENT}endpoint\.metadata\.updated", "0015-ep-metadata-updated", eme.METADATA_UPDATED.schema),
    *(
        (rf"{SERVICE}epmmp\.{subject}-{what}", f"0019-{name}-{what}", kind.type.schema)
        for subject, (name, exchange) in EPMMP.items()
        for what, kind in (("request", exchange.request), ("response", exchange.answer))
    ),
]
"""Subjects, the files of the RFCs, and our restatements, which are used where the RFCs are not at hand."""

_SCHEMAS = [
    (re.compile(pattern), name, fastavro.parse_schema(rfc_schema(name, ours)))
    for pattern, name, ours in _KINDS
]


class Checked:
    """Reads all messages between services from now on. `seen` counts them by the files of the RFCs."""

    def __init__(self, url: str) -> None:
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.last: dict[str, dict[str, Any]] = {}
        """The fields of the last message of each kind."""
        self._url = url
        self._nats = Client()

    async def __aenter__(self) -> Self:
        await self._nats.connect(self._url)
        await self._nats.subscribe("kaa.v1.>", cb=self._read)
        await flush(self._nats)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._nats.close()
        assert not self.wrong, self.wrong

    async def _read(self, message: Msg) -> None:
        for pattern, name, schema in _SCHEMAS:
            if pattern.fullmatch(message.subject):
                try:
                    source = io.BytesIO(message.data)
                    fields = fastavro.schemaless_reader(source, schema, None)
                    assert isinstance(fields, dict)
                    assert not source.read(), "bytes behind the datum"
                except Exception as error:  # noqa: BLE001 - told at the end
                    self.wrong.append(f"{message.subject}: {error!r}")
                else:
                    self.seen[name] += 1
                    self.last[name] = fields
                return
        if OWN.fullmatch(message.subject) is None:
            self.wrong.append(f"no RFC has the subject {message.subject}")
