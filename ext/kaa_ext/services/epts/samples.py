"""The stream of data samples, and storing them in it.

Stream `<instance>-samples`, subject `<instance>.samples.<application version>.<endpoint ID>`, both escaped as in
kaa_ext.sdk.state; each message is a `Batch` in JSON.
"""

from collections.abc import Sequence
from functools import lru_cache, partial

import msgspec
import nats.errors
from kaa_gateway.bus.codes import STREAM_NAME_IN_USE
from nats.js import api
from nats.js.errors import APIError

from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import NotDelivered, StateUnavailable, text_of
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.publisher import Publication
from kaa_ext.sdk.state import escaped
from kaa_ext.services.local_receivers import Outcome, Samples

ANY = "*"
SUBJECTS_MAX = 65_536
"""Endpoints whose subject is remembered."""
STORED = Outcome(200)
NOT_STORED = Outcome(503, "Data samples could not be kept")


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
    """The stream of an instance. It keeps samples for some seconds, and some bytes of them; the oldest go first."""

    def __init__(self, instance: str, retention_s: float, max_bytes: int) -> None:
        self._instance = instance
        self._retention_s = retention_s
        self._max_bytes = max_bytes
        self._subject = lru_cache(SUBJECTS_MAX)(partial(stream_subject, instance))

    async def make_stream(self, extension: Extension) -> None:
        """Make the stream if it does not exist."""
        try:
            await extension.jetstream().add_stream(
                name=stream_name(self._instance),
                subjects=[stream_subject(self._instance)],
                max_age=self._retention_s,
                max_bytes=self._max_bytes,
                discard=api.DiscardPolicy.OLD,
            )
        except (nats.errors.Error, NotDelivered) as error:
            # A stream that exists with other limits is the operator's.
            if not (isinstance(error, APIError) and error.err_code == STREAM_NAME_IN_USE):
                raise StateUnavailable(text_of(error)) from error

    async def store(self, extension: Extension, batch: Sequence[Samples], arrived: int) -> list[Outcome]:
        """Store samples, and return when the stream has them: 200, or 503 if it may not have them.

        `arrived` is the UNIX time in milliseconds of their arrival.
        """
        subject = self._subject
        publications = [
            Publication(
                subject(version, endpoint),
                payloads.encode(Batch(arrived, version, endpoint, [msgspec.Raw(each) for each in samples])),
                {api.Header.MSG_ID.value: id_},
            )
            for id_, version, endpoint, samples in batch
        ]
        stored = await extension.publisher.publish_all(publications)
        return [STORED if isinstance(each, int) else NOT_STORED for each in stored]
