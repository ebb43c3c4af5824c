"""Our Avro schemas and JSON schemas are those of the RFCs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext.messages import MessageType, cdtp, cip, dstp, eme
from kaa_gateway.bus import elce
from kaa_gateway.errors import MalformedAvro

from tests.support.json_schemas import SCHEMAS
from tests.support.schemas import RFC_DIRECTORY

OURS: dict[str, MessageType] = {
    "0006-config-applied": cdtp.CONFIG_APPLIED,
    "0006-config-request": cdtp.CONFIG_REQUEST,
    "0006-config-response": cdtp.CONFIG_RESPONSE,
    "0006-config-updated": cdtp.CONFIG_UPDATED,
    "0009-ep-connected": elce.CONNECTED_EVENT,
    "0009-ep-disconnected": elce.DISCONNECTED_EVENT,
    "0012-command-invocation-request": cip.COMMAND_REQUEST,
    "0012-command-invocation-result": cip.COMMAND_RESULT,
    "0013-ep-data-samples-event": dstp.DATA_SAMPLES_EVENT,
    "0013-ep-data-samples-processed": dstp.DATA_SAMPLES_PROCESSED,
    "0015-ep-metadata-updated": eme.METADATA_UPDATED,
}

FINGERPRINTS = {
    "0006-config-applied": "c1a3ceb7bc11a2010d4431932a0e43cf53f460cd8350ea5b2c5a066e38d7b72e",
    "0006-config-request": "1102349c888ce418a6ab186bd7e2fb987005e9a07eaafdcef889b9d84449e367",
    "0006-config-response": "c849ad13f2589f85948012c0103f3263fb5896ad403f5f2b1877649d4037bd0e",
    "0006-config-updated": "ddeecc78eddef9509d6a927fa5e601716e71234b78bed2dda8acaa3188273e24",
    "0009-ep-connected": "67fa7f66e60558a9039e8eb88f6228a346d2eca7853147cee7f6b8a8b01972f8",
    "0009-ep-disconnected": "7f5142df859b9eb39da44fb495cc8f32aae406d518e8c1ace6e3cd552ad57abb",
    "0012-command-invocation-request": "3f46c27798d71c67fb464072713f5e0c3847c7bf5ec5729141b770897bdcf9cf",
    "0012-command-invocation-result": "f56b1b700947d69a4ab6004f5b7cd1134e2aa04eb9b7a13e1ce505e545e9e809",
    "0013-ep-data-samples-event": "912729b5d4c771a523037dc4209b19e128d848be3e82151ecc24ad9125ffd56a",
    "0013-ep-data-samples-processed": "cb1fa0cb5bbfd852fb51e7ca2174053435f7cecf73516c341144cd5c94858ffe",
    "0015-ep-metadata-updated": "ae3e929cc1bd914db5d38cd3b0d66da980d7c24cca7606e136d7409b6243e713",
}
"""SHA-256 of the Parsing Canonical Form of each schema in the RFCs."""

DESCRIPTIVE = {"description", "title", "$schema", "default"}


def canonical(schema: Any) -> str:
    return str(fastavro.schema.to_parsing_canonical_form(schema))


@pytest.mark.parametrize("name", OURS)
def test_avro_schemas(name: str) -> None:
    assert hashlib.sha256(canonical(OURS[name].schema).encode()).hexdigest() == FINGERPRINTS[name]
    published = RFC_DIRECTORY / f"{name}.avsc"
    if published.exists():
        assert canonical(OURS[name].schema) == canonical(json.loads(published.read_text()))


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_schemas(name: str) -> None:
    published = Path(RFC_DIRECTORY.parent, "json", f"{name}.schema.json")
    if published.exists():
        assert SCHEMAS[name] == without_descriptions(json.loads(published.read_text()))


def without_descriptions(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: without_descriptions(value)
            for key, value in schema.items()
            if key not in DESCRIPTIVE or isinstance(value, dict)
        }
    if isinstance(schema, list):
        return [without_descriptions(each) for each in schema]
    return schema


@given(name=st.sampled_from(sorted(OURS)), datum=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(name: str, datum: bytes) -> None:
    try:
        fields = OURS[name].decode(datum)
    except MalformedAvro:
        return
    assert isinstance(fields["correlationId"], str)


def test_subjects() -> None:
    assert dstp.event_subject("dcx") == "kaa.v1.events.dcx.endpoint.data-collection.data-samples-received"
    assert dstp.reply_subject("dcx-1") == "kaa.v1.replica.dcx-1.dstp.DataSamplesProcessed"
    assert cdtp.request_subject("ecr") == "kaa.v1.service.ecr.cdtp.request"
    assert cdtp.updated_subject("ecr") == "kaa.v1.events.ecr.endpoint.config.updated"
    assert cdtp.applied_subject("cmx", "net") == "kaa.v1.events.cmx.endpoint.config.applied.net"
    assert cip.request_subject("cex") == "kaa.v1.service.cex.cip.command-request"
    assert eme.event_subject("epmx") == "kaa.v1.events.epmx.endpoint.metadata.updated"
    assert (
        elce.event_subject("kpc", connected=False) == "kaa.v1.events.kpc.endpoint.connectivity.disconnected"
    )
