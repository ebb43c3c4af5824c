"""The control messages of 16/ECAP, 22/CAP and 21/TLE against the schemas of the RFCs."""

import hashlib
import io
import time
from typing import Any

import fastavro
import pytest
from fastavro.schema import parse_schema, to_parsing_canonical_form
from kaa_ext.services import auth_messages
from kaa_gateway.bus.messages import Exchange, MessageType, is_expired
from kaa_gateway.errors import MalformedAvro
from kaa_gateway.identity import messages

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

OF_THE_PROVIDER: dict[str, Any] = {
    "0016-endpoint-token-validation-request": auth_messages.TOKEN_VALIDATION.request,
    "0016-endpoint-token-validation-response": auth_messages.TOKEN_VALIDATION.answer,
    "0016-endpoint-token-status-transition-request": auth_messages.TOKEN_TRANSITION.request,
    "0016-endpoint-token-status-transition-response": auth_messages.TOKEN_TRANSITION.answer,
    "0016-endpoint-token-revoked": auth_messages.TOKEN_REVOKED,
    "0016-client-username-password-validation-request": auth_messages.ECAP_PASSWORD.request,
    "0016-client-username-password-validation-response": auth_messages.ECAP_PASSWORD.answer,
    "0016-client-certificate-validation-request": auth_messages.ECAP_CERTIFICATE.request,
    "0016-client-certificate-validation-response": auth_messages.ECAP_CERTIFICATE.answer,
    "0016-client-credential-revoked": auth_messages.ECAP_CREDENTIAL_REVOKED,
    "0022-basic-authentication-request": auth_messages.CAP_BASIC.request,
    "0022-basic-authentication-response": auth_messages.CAP_BASIC.answer,
    "0022-certificate-authentication-request": auth_messages.CAP_CERTIFICATE.request,
    "0022-certificate-authentication-response": auth_messages.CAP_CERTIFICATE.answer,
    "0022-credentials-revoked": auth_messages.CAP_CREDENTIALS_REVOKED,
}
"""The same messages in the reference provider, which shares no code with the gateway."""

# ruff: noqa: E501
FINGERPRINTS = {
    "0016-client-certificate-validation-request": "5869c6fd00a26b818a01adb8070259579b9aba92f20104b468eee83fe31f79d7",
    "0016-client-certificate-validation-response": "32f7d15cf600fb607a3ccd4ea141ee7c77965729f53186b4ef2bdc2b637a5d2e",
    "0016-client-credential-revoked": "a70fe38a0da144c2fc482a8b410a76255a7e27e2414bed3a439d3460a293c7c3",
    "0016-client-username-password-validation-request": "2d70efadc3037a36a6a71ef9e8c1b852afd262a7aad8b9e3b69751fa4c32d4d5",
    "0016-client-username-password-validation-response": "4b144e076d65ecc876ebd28feb7aa76bf160cecb638846aa85a4cd084b8cee1d",
    "0016-endpoint-token-revoked": "5ae6c1edf39b6e98555d8f376a5a04b1a597ebd69901d65d4e5d9eb58879dc55",
    "0016-endpoint-token-status-transition-request": "5d6de79274bb5406a517524f6037026b1e925fddade1214b7cd751f6b379c601",
    "0016-endpoint-token-status-transition-response": "d84b3cb72a814da40892c8d9d89a72f2381744835cf475a6ded2b05595185a04",
    "0016-endpoint-token-validation-request": "a4067e566e7d001050a1ca5b666e1ecb6df728ef71be24c3ffed63ace2d23492",
    "0016-endpoint-token-validation-response": "bd2ef7a0e828dd2c96f2326e4877368f1485d38f11c9a39fc4b9ade3a7a5c2f9",
    "0021-tenant-unregistered": "ad3868aeb56875b345a761caa18edd1558de6e4ab3d2e0b23523c36a47780610",
    "0022-basic-authentication-request": "f86f6c9eda49841ff6276850bf8f1dc6e8d522c0776398ac1382ec84cc6e8c6a",
    "0022-basic-authentication-response": "a66aa33c667e8dd7560dfe5460d788df4551bc5eaa5905b0ca4a9ebb980e42f3",
    "0022-certificate-authentication-request": "75205fb812382e7652eb49b87e38546d22b93ff406ceda90f81434ea99b1b703",
    "0022-certificate-authentication-response": "4247f90c999040dee6b4ad1c000651d8023a921be1136a38e3a15a480fe0fc30",
    "0022-credentials-revoked": "4f0a4c9dccf5d36976e49a9243cc35ed678e08836e87e36e9bd8e38b0866af54",
}
"""SHA-256 of the Parsing Canonical Form of each schema in the RFCs."""

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
    for kind in (TYPES[name], OF_THE_PROVIDER.get(name, TYPES[name])):
        canonical = str(to_parsing_canonical_form(kind.schema))
        assert hashlib.sha256(canonical.encode()).hexdigest() == FINGERPRINTS[name]


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
