"""The control messages of 16/ECAP, 22/CAP, 21/TLE and 9/ELCE against the schemas of the RFCs."""

import hashlib
import io
import time
from typing import Any

import fastavro
import pytest
from fastavro.schema import parse_schema, to_parsing_canonical_form
from kaa_gateway.bus import cap, ecap, elce, tle
from kaa_gateway.bus.messages import Exchange, MessageType, is_expired
from kaa_gateway.errors import MalformedAvro

from tests.support import schemas

TYPES: dict[str, MessageType] = {
    "0016-endpoint-token-validation-request": ecap.TOKEN_VALIDATION.request.type,
    "0016-endpoint-token-validation-response": ecap.TOKEN_VALIDATION.answer.type,
    "0016-endpoint-token-status-transition-request": ecap.TOKEN_TRANSITION.request.type,
    "0016-endpoint-token-status-transition-response": ecap.TOKEN_TRANSITION.answer.type,
    "0016-endpoint-token-revoked": ecap.TOKEN_REVOKED,
    "0016-client-username-password-validation-request": ecap.CLIENT_PASSWORD.request.type,
    "0016-client-username-password-validation-response": ecap.CLIENT_PASSWORD.answer.type,
    "0016-client-certificate-validation-request": ecap.CLIENT_CERTIFICATE.request.type,
    "0016-client-certificate-validation-response": ecap.CLIENT_CERTIFICATE.answer.type,
    "0016-client-credential-revoked": ecap.CREDENTIAL_REVOKED,
    "0022-basic-authentication-request": cap.BASIC.request.type,
    "0022-basic-authentication-response": cap.BASIC.answer.type,
    "0022-certificate-authentication-request": cap.CERTIFICATE.request.type,
    "0022-certificate-authentication-response": cap.CERTIFICATE.answer.type,
    "0022-credentials-revoked": cap.CREDENTIALS_REVOKED,
    "0021-tenant-unregistered": tle.TENANT_UNREGISTERED,
    "0021-tenant-updated": tle.TENANT_UPDATED,
    "0009-ep-unregistered": elce.UNREGISTERED_EVENT,
    "0009-ep-appversion-updated": elce.APP_VERSION_UPDATED_EVENT,
}
"""By the file names of the RFCs."""

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
    "0021-tenant-updated": "7cba2e6158a04422dadba4f56cbf8cf28710ae64e8273d2fd5424b269d0e3e1a",
    "0009-ep-unregistered": "4fcdfb867dbf5864c758b9a9ea6bb9327be4b3b525d20343700eaf8a1832afa7",
    "0009-ep-appversion-updated": "3de4a81fbe79500fe663ed38580b17626f315614310f9c1450710fbb78d39fd8",
}
"""SHA-256 of the Parsing Canonical Form of each schema in the RFCs."""

SUBJECTS: dict[str, Exchange] = {
    "ep-token": ecap.TOKEN_VALIDATION,
    "ep-token-status-transition": ecap.TOKEN_TRANSITION,
    "client-username-password": ecap.CLIENT_PASSWORD,
    "client-certificate": ecap.CLIENT_CERTIFICATE,
    "basic": cap.BASIC,
    "certificate": cap.CERTIFICATE,
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
    canonical = str(to_parsing_canonical_form(TYPES[name].schema))
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
    schema: Any = parse_schema(rfc_schema(name))
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
