"""13/DSTP: our restatement of the schema, and what the encoder writes with it."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from ext import dstp

PUBLISHED = Path(__file__).parents[3].parent / "shared" / "spec" / "avro" / "0013-ep-data-samples-event.avsc"
"""Where the RFC's own schema lies beside a checkout of a founding engineer; absent in a plain clone."""

RFC_CANONICAL = (
    '{"name":"org.kaaproject.ipc.dstp.gen.v1.DataSamplesEvent","type":"record","fields":['
    '{"name":"correlationId","type":"string"},{"name":"timestamp","type":"long"},'
    '{"name":"timeout","type":"long"},{"name":"appVersionName","type":"string"},'
    '{"name":"endpointId","type":"string"},{"name":"contentType","type":"string"},'
    '{"name":"dataSamples","type":{"type":"array","items":"bytes"}}]}'
)
"""Parsing Canonical Form of 0013-ep-data-samples-event.avsc, kept here for clones without it."""


def read(datum: bytes, schema: Any) -> Any:
    stream = io.BytesIO(datum)
    record = fastavro.schemaless_reader(stream, schema, schema)
    assert stream.read() == b""
    return record


def test_schema_is_that_of_the_rfc() -> None:
    assert fastavro.schema.to_parsing_canonical_form(dstp.DATA_SAMPLES_EVENT) == RFC_CANONICAL
    if PUBLISHED.exists():
        published = json.loads(PUBLISHED.read_text())
        assert fastavro.schema.to_parsing_canonical_form(published) == RFC_CANONICAL


@given(
    texts=st.tuples(st.text(), st.text(), st.text()),
    timestamp=st.integers(-(2**63), 2**63 - 1),
    samples=st.lists(st.binary()),
)
def test_event_reads_back_with_the_schema_of_the_rfc(
    texts: tuple[str, str, str], timestamp: int, samples: list[bytes]
) -> None:
    correlation_id, app_version_name, endpoint_id = texts
    datum = dstp.encode_data_samples_event(correlation_id, timestamp, app_version_name, endpoint_id, samples)
    assert read(datum, json.loads(RFC_CANONICAL)) == {
        "correlationId": correlation_id,
        "timestamp": timestamp,
        "timeout": 0,
        "appVersionName": app_version_name,
        "endpointId": endpoint_id,
        "contentType": "application/json",
        "dataSamples": samples,
    }


def test_subjects() -> None:
    assert dstp.event_subject("dcx") == "kaa.v1.events.dcx.endpoint.data-collection.data-samples-received"
    assert dstp.reply_subject("dcx-1") == "kaa.v1.replica.dcx-1.dstp.DataSamplesProcessed"
