"""Our Avro schemas and JSON schemas are those of the RFCs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext.messages import MessageType, cdtp, cip, dstp, eme, epmmp, tstp
from kaa_gateway.bus import elce, tle
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
    "0009-ep-registered": elce.REGISTERED_EVENT,
    "0009-ep-unregistered": elce.UNREGISTERED_EVENT,
    "0009-ep-appversion-updated": elce.APP_VERSION_UPDATED_EVENT,
    "0012-command-invocation-request": cip.COMMAND_REQUEST,
    "0012-command-invocation-result": cip.COMMAND_RESULT,
    "0013-ep-data-samples-event": dstp.DATA_SAMPLES_EVENT,
    "0013-ep-data-samples-processed": dstp.DATA_SAMPLES_PROCESSED,
    "0014-ep-time-series-event": tstp.TIME_SERIES_EVENT,
    "0014-ep-time-series-processed": tstp.TIME_SERIES_PROCESSED,
    "0015-ep-metadata-updated": eme.METADATA_UPDATED,
    "0019-endpoint-metadata-get-request": epmmp.GET.request.type,
    "0019-endpoint-metadata-get-response": epmmp.GET.answer.type,
    "0019-endpoint-metadata-key-batch-update-request": epmmp.UPDATE_KEYS.request.type,
    "0019-endpoint-metadata-key-batch-update-response": epmmp.UPDATE_KEYS.answer.type,
    "0019-endpoint-metadata-key-update-request": epmmp.UPDATE_KEY.request.type,
    "0019-endpoint-metadata-key-update-response": epmmp.UPDATE_KEY.answer.type,
    "0019-endpoint-metadata-keys-get-request": epmmp.GET_KEYS.request.type,
    "0019-endpoint-metadata-keys-get-response": epmmp.GET_KEYS.answer.type,
    "0019-endpoint-metadata-patch-request": epmmp.PATCH.request.type,
    "0019-endpoint-metadata-patch-response": epmmp.PATCH.answer.type,
    "0019-endpoints-app-version-request": epmmp.GET_APP_VERSIONS.request.type,
    "0019-endpoints-app-version-response": epmmp.GET_APP_VERSIONS.answer.type,
    "0021-tenant-updated": tle.TENANT_UPDATED,
}

FINGERPRINTS = {
    "0006-config-applied": "c1a3ceb7bc11a2010d4431932a0e43cf53f460cd8350ea5b2c5a066e38d7b72e",
    "0006-config-request": "1102349c888ce418a6ab186bd7e2fb987005e9a07eaafdcef889b9d84449e367",
    "0006-config-response": "c849ad13f2589f85948012c0103f3263fb5896ad403f5f2b1877649d4037bd0e",
    "0006-config-updated": "ddeecc78eddef9509d6a927fa5e601716e71234b78bed2dda8acaa3188273e24",
    "0009-ep-connected": "67fa7f66e60558a9039e8eb88f6228a346d2eca7853147cee7f6b8a8b01972f8",
    "0009-ep-disconnected": "7f5142df859b9eb39da44fb495cc8f32aae406d518e8c1ace6e3cd552ad57abb",
    "0009-ep-registered": "6ec173b1e1973eb7915d4b22965f7c20075bcf22fc16cd3215b4c20112a0a43a",
    "0009-ep-unregistered": "4fcdfb867dbf5864c758b9a9ea6bb9327be4b3b525d20343700eaf8a1832afa7",
    "0009-ep-appversion-updated": "3de4a81fbe79500fe663ed38580b17626f315614310f9c1450710fbb78d39fd8",
    "0012-command-invocation-request": "3f46c27798d71c67fb464072713f5e0c3847c7bf5ec5729141b770897bdcf9cf",
    "0012-command-invocation-result": "f56b1b700947d69a4ab6004f5b7cd1134e2aa04eb9b7a13e1ce505e545e9e809",
    "0013-ep-data-samples-event": "912729b5d4c771a523037dc4209b19e128d848be3e82151ecc24ad9125ffd56a",
    "0013-ep-data-samples-processed": "cb1fa0cb5bbfd852fb51e7ca2174053435f7cecf73516c341144cd5c94858ffe",
    "0014-ep-time-series-event": "2c379a94d252bb1d09300fce058c898ceb9cf72ecbfb12f69e5195b3eec3fa9e",
    "0014-ep-time-series-processed": "16781041902ed5ee76f58786343b684322dc568482e7f84f343c9694383a4d8c",
    "0015-ep-metadata-updated": "ae3e929cc1bd914db5d38cd3b0d66da980d7c24cca7606e136d7409b6243e713",
    "0019-endpoint-metadata-get-request": "9de5e513ff2270c7528b93291b86a345017db9cecd713687a1b8dc8d00bdfbcc",
    "0019-endpoint-metadata-get-response": "22c7524496fced6fe8f679a78bc2f595f7f5bf0e571db8f1da89e86160826610",
    "0019-endpoint-metadata-key-batch-update-request": (
        "07497af0b83926d2b385e71a5b762d8d209accea8b3c26ec7365e23f68417225"
    ),
    "0019-endpoint-metadata-key-batch-update-response": (
        "79617a3a7e1a3bca53879bbef4990378011a86236f32f9b00283d23ccab2fc39"
    ),
    "0019-endpoint-metadata-key-update-request": "9d8b44fa27012c7daa698898e048281b08b86b4f163b13cfa18c3fa56c798ad7",
    "0019-endpoint-metadata-key-update-response": "0b7f34f0cb3f8ac36616bb5f986e19ea45521a5630d520594bc5b2be0b0ab421",
    "0019-endpoint-metadata-keys-get-request": "349652af2d34fd6cefd414f826290a8bdd7458bfd82ee83e612bfcb841b0a3a9",
    "0019-endpoint-metadata-keys-get-response": "f5de5c28e054156c058fe374d91f39ca7dfc7c81d9d6dcec9fd8ce090a77ee92",
    "0019-endpoint-metadata-patch-request": "5beb8e616575ec4eb6bfca26f0529a529d7553b61516b938e8d649faa2130de6",
    "0019-endpoint-metadata-patch-response": "73f490a0e9c65aebf4fb7519704f20fcf544adcbb644e823b2f826ce61ac08f3",
    "0019-endpoints-app-version-request": "803237435c6b77e645efc9f4b7b91b43f91c632a1e610add33946e2bd289bdd3",
    "0019-endpoints-app-version-response": "0ca5938a8c0031d3d4eb4f51441861720fc4f2cc37aae2d776379aa3b49de4eb",
    "0021-tenant-updated": "7cba2e6158a04422dadba4f56cbf8cf28710ae64e8273d2fd5424b269d0e3e1a",
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
    assert tstp.event_subject("epts", "t") == (
        "kaa.v1.events.epts.endpoint.data-collection.data-points-received.t"
    )
    assert tle.event_subject("*", "updated") == "kaa.v1.events.*.tenant.lifecycle.updated"
    assert (
        elce.lifecycle_subject("epr", elce.APP_VERSION_UPDATED)
        == "kaa.v1.events.epr.endpoint.lifecycle.appversion-updated"
    )
    assert [each.request.subject for each in epmmp.EXCHANGES] == [
        "ep-metadata-get-request", "ep-metadata-patch-request", "ep-metadata-key-update-request",
        "ep-metadata-key-batch-update-request", "ep-metadata-keys-get-request", "ep-app-version-get-request",
    ]  # fmt: skip
    assert eme.event_subject("epmx") == "kaa.v1.events.epmx.endpoint.metadata.updated"
    assert (
        elce.event_subject("kpc", connected=False) == "kaa.v1.events.kpc.endpoint.connectivity.disconnected"
    )
