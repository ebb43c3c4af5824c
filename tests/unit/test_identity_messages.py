"""The control messages of 16/ECAP, 22/CAP and 21/TLE against the schemas of the RFCs."""

import io
import time
from typing import Any

import fastavro
import pytest
from fastavro.schema import parse_schema, to_parsing_canonical_form

from gateway.bus.messages import Exchange, MessageType, is_expired
from gateway.errors import MalformedAvro
from gateway.identity import messages
from tests.support import schemas

TYPES: dict[str, MessageType] = {
    "0016-endpoint-token-validation-request": messages.TOKEN_VALIDATION.request.type,
    "0016-endpoint-token-validation-response": messages.TOKEN_VALIDATION.answer.type,
    "0016-endpoint-token-status-transition-request": messages.TOKEN_TRANSITION.request.type,
    "0016-endpoint-token-status-transition-response": messages.TOKEN_TRANSITION.answer.type,
    "0016-endpoint-token-revoked": messages.TOKEN_REVOKED,
    "0016-client-username-password-validation-request": messages.ECAP_PASSWORD.request.type,
    "0016-client-username-password-validation-response": messages.ECAP_PASSWORD.answer.type,
    "0016-client-certificate-validation-request": messages.ECAP_CERTIFICATE.request.type,
    "0016-client-certificate-validation-response": messages.ECAP_CERTIFICATE.answer.type,
    "0016-client-credential-revoked": messages.ECAP_CREDENTIAL_REVOKED,
    "0022-basic-authentication-request": messages.CAP_BASIC.request.type,
    "0022-basic-authentication-response": messages.CAP_BASIC.answer.type,
    "0022-certificate-authentication-request": messages.CAP_CERTIFICATE.request.type,
    "0022-certificate-authentication-response": messages.CAP_CERTIFICATE.answer.type,
    "0022-credentials-revoked": messages.CAP_CREDENTIALS_REVOKED,
    "0021-tenant-unregistered": messages.TENANT_UNREGISTERED,
}
"""By the file names of the RFCs."""

SUBJECTS: dict[str, Exchange] = {
    "ep-token": messages.TOKEN_VALIDATION,
    "ep-token-status-transition": messages.TOKEN_TRANSITION,
    "client-username-password": messages.ECAP_PASSWORD,
    "client-certificate": messages.ECAP_CERTIFICATE,
    "basic": messages.CAP_BASIC,
    "certificate": messages.CAP_CERTIFICATE,
}


def rfc_schema(name: str) -> Any:
    """That of the RFC if it lies beside the checkout, else ours, which then proves only that we can read ourselves."""
    return schemas.rfc_schema(name, TYPES[name].schema)


def sample(schema: Any) -> dict[str, Any]:
    """A record with something in every field."""
    values = {"string": "text", "long": 1, "int": 200}
    return {
        field["name"]: ["text"] if isinstance(field["type"], dict) else values.get(str(field["type"]), "text")
        for field in schema["fields"]
    }


@pytest.mark.parametrize("name", TYPES)
def test_a_schema_is_that_of_its_rfc(name: str) -> None:
    rfc = parse_schema(rfc_schema(name))
    assert to_parsing_canonical_form(TYPES[name].schema) == to_parsing_canonical_form(rfc)


@pytest.mark.parametrize("name", TYPES)
def test_what_is_written_by_the_rfcs_schema_is_read_and_the_other_way_round(name: str) -> None:
    schema = parse_schema(rfc_schema(name))
    record = sample(schema)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    assert TYPES[name].decode(out.getvalue()) == record
    fields = {
        key: value for key, value in record.items() if key not in ("correlationId", "timestamp", "timeout")
    }
    before = time.time_ns() // 1_000_000
    datum = TYPES[name].encode(correlation_id="mine", timeout=1.5, **fields)
    read = fastavro.schemaless_reader(io.BytesIO(datum), schema, None)
    assert isinstance(read, dict)
    assert before <= read["timestamp"] <= time.time_ns() // 1_000_000
    assert read == {**record, "correlationId": "mine", "timeout": 1500, "timestamp": read["timestamp"]}


@pytest.mark.parametrize("name", TYPES)
def test_what_may_be_missing_may_be_missing(name: str) -> None:
    schema = parse_schema(rfc_schema(name))
    record = sample(schema)
    optional = {field["name"] for field in schema["fields"] if isinstance(field["type"], list)}
    record |= dict.fromkeys(optional)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    assert TYPES[name].decode(out.getvalue()) == record


@pytest.mark.parametrize("name", TYPES)
def test_a_damaged_datum_is_malformed(name: str) -> None:
    """Cut off at each byte, or with one too many: an error of ours, never one of fastavro's."""
    datum = TYPES[name].encode(
        **{
            key: value
            for key, value in sample(TYPES[name].schema).items()
            if key not in ("correlationId", "timestamp", "timeout")
        }
    )
    for size in range(len(datum)):
        with pytest.raises(MalformedAvro):
            TYPES[name].decode(datum[:size])
    with pytest.raises(MalformedAvro):
        TYPES[name].decode(datum + b"\0")
    with pytest.raises(MalformedAvro):
        TYPES[name].decode(b"\xff" * len(datum))


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_end_as_the_rfcs_say(name: str) -> None:
    exchange = SUBJECTS[name]
    assert (exchange.request.subject, exchange.answer.subject) == (f"{name}-request", f"{name}-response")


def test_expiry() -> None:
    now = time.time_ns() // 1_000_000
    assert is_expired({"timestamp": now - 60_000, "timeout": 1_000})
    assert not is_expired({"timestamp": now, "timeout": 60_000})
    assert not is_expired({"timestamp": 0, "timeout": 0}), "0 is never"
