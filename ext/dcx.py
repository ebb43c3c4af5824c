"""dcx, data collection: 2/DCP from devices, 13/DSTP to the receivers of data samples.

A batch is answered with 200 when its event was handed to NATS; confirmations of the receivers are not
waited for.

Source: 2/DCP "Data Collection Protocol". Beyond it, as Kaa's own clients need it, the payload may be one
object, number or boolean in place of an array; that is one sample.
"""

import re

import msgspec

from ext import dstp
from ext.errors import ExtensionError, PayloadTooLarge
from ext.requests import Request, now_ms
from ext.service import Extension

_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_one = msgspec.json.Decoder(msgspec.Raw).decode
_BYTE_POSITION = re.compile(r"\(byte (\d+)\)")
_JSON_SPACE = b" \t\r\n"
_NOT_SAMPLES = (b'"', b"n")


def data_samples(payload: bytes) -> list[bytes]:
    """The samples in a payload, each as the JSON that the device sent; ExtensionError 400 for all else."""
    if not payload:
        raise ExtensionError(400, "Empty payload")
    try:
        if not payload.isascii():
            payload.decode()
        if payload.lstrip(_JSON_SPACE).startswith(b"["):
            return [bytes(sample) for sample in _decode_batch(payload)]
        sample = bytes(_decode_one(payload))
    except UnicodeDecodeError as error:
        raise ExtensionError(400, f"Invalid UTF-8 at byte {error.start}") from error
    except msgspec.DecodeError as error:
        position = _BYTE_POSITION.search(str(error))
        # The one error without a position is that of a text which ends too early.
        at = position[1] if position else len(payload)
        raise ExtensionError(400, f"Invalid JSON at byte {at}") from error
    except RecursionError as error:
        raise ExtensionError(400, "JSON is nested too deep") from error
    if sample.startswith(_NOT_SAMPLES):
        raise ExtensionError(400, "Expected an array, an object, a number or a boolean")
    return [sample]


def register(extension: Extension) -> None:
    """Make the extension a data collection service."""
    event_subject = dstp.event_subject(extension.name)
    reply_subject = dstp.reply_subject(extension.replica_id)

    @extension.handler("/json")
    async def collect(request: Request) -> None:
        if request.endpoint_id is None:
            raise ExtensionError(400, "Data samples need an endpoint")
        samples = data_samples(request.payload)
        if not samples:
            return
        event = dstp.encode_data_samples_event(
            request.correlation_id, now_ms(), request.app_version_name, request.endpoint_id, samples
        )
        try:
            await extension.publish(event_subject, event, reply_subject)
        except PayloadTooLarge as error:
            raise ExtensionError(413, "Batch of data samples is too large") from error
