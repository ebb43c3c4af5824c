"""NATS subject names. Source: 3/ISM; 4/ESP; 9/ELCE."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.bus import subjects


def test_subjects_of_the_protocols() -> None:
    assert subjects.service("dcx", "esp", subjects.CLIENT_DATA) == "kaa.v1.service.dcx.esp.ClientData"
    assert subjects.service("kpc", "esp", subjects.EXTENSION_DATA) == "kaa.v1.service.kpc.esp.ExtensionData"
    assert subjects.replica("r-1", "esp", subjects.EXTENSION_DATA) == "kaa.v1.replica.r-1.esp.ExtensionData"
    assert (
        subjects.event("kpc", "endpoint", "connectivity", "connected")
        == "kaa.v1.events.kpc.endpoint.connectivity.connected"
    )


def test_answering_with_another_message_type_replaces_the_last_token_only() -> None:
    """3/ISM, session affinity."""
    reply_to = subjects.replica("dcx-1", "esp", "AnyType")
    assert subjects.with_message_type(reply_to, subjects.CLIENT_DATA) == "kaa.v1.replica.dcx-1.esp.ClientData"


@pytest.mark.parametrize("name", ["kpc", "KPC_1", "0", "a-b", "_", "x" * 128])
def test_names(name: str) -> None:
    assert subjects.NAME.match(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a.b", "a*", ">", "*", "a b", "a\n", "a\r", "\n", "a\0", "é", "a\u0661", "x" * 129]
)
def test_what_is_no_name(name: str) -> None:
    assert not subjects.NAME.match(name)


@given(st.text(max_size=20))
def test_a_name_is_always_one_token_of_a_subject(name: str) -> None:
    if subjects.NAME.match(name):
        subject = subjects.service(name, "esp", subjects.CLIENT_DATA)
        assert subject.isascii()
        assert subject.split(".") == ["kaa", "v1", "service", name, "esp", "ClientData"]
        assert not set(subject) & set("*> \t\r\n")
