"""What a stored session becomes again."""

from kaa_gateway.mqtt import session_state
from kaa_gateway.mqtt.session_state import Addition, AttachedEndpoint, Queued, SessionState, restored


def state(**fields: object) -> SessionState:
    given = {
        "version": 1,
        "expiry": 60.0,
        "level_in_flight": 4,
        "last_packet_id": 7,
        "subscriptions": [],
        "endpoints": [],
        "in_flight": [],
        "queued": [],
        "received": [],
        "pushes": [],
    }
    return SessionState(**(given | fields))  # type: ignore[arg-type]


def queued(payload: bytes) -> Queued:
    return Queued(b"a", payload, None, 0, 1, False)


def found(*additions: Addition, **fields: object) -> SessionState | None:
    data = restored(
        session_state.encode(state(**fields)), [session_state.encode(each) for each in additions], 5
    )
    return None if data is None else session_state.decode(data)


def test_additions_follow_in_order() -> None:
    merged = found(
        Addition([queued(b"2")], [21]),
        Addition([queued(b"3"), queued(b"4")], [22, 23]),
        queued=[queued(b"1")],
        pushes=[20],
    )
    assert merged is not None
    assert [each.payload for each in merged.queued] == [b"1", b"2", b"3", b"4"]
    assert merged.pushes == [22, 23]
    assert merged.revision == 5


def test_packet_identifiers_go_on_far_from_those_that_the_client_may_have() -> None:
    """One that was sent and not stored may be in the client at QoS 2: another message under it would be lost."""
    for last in (0, 7, 32_767, 32_768, 65_535):
        merged = found(last_packet_id=last)
        assert merged is not None
        assert 30_000 < abs(merged.last_packet_id - last) < 36_000
        assert 0 <= merged.last_packet_id <= 65_535


def test_what_is_malformed_is_no_state() -> None:
    assert restored(b"", [], 1) is None
    assert restored(b"\x91" * 10_000, [], 1) is None
    assert restored(session_state.encode(state()), [b"\x91"], 1) is None


def test_text_that_is_no_utf8_is_malformed() -> None:
    data = session_state.encode(state(endpoints=[AttachedEndpoint(b"v1", b"token", "endpoint", None)]))
    assert session_state.decode(data) is not None
    assert session_state.decode(data.replace(b"endpoint", b"endpoin\x80")) is None
