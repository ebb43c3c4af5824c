"""Which topic names a topic filter matches: MQTT 3.1.1 section 4.7, against its examples and against paho."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.mqtt.subscriptions import filter_matches
from paho.mqtt.client import topic_matches_sub


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # 4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/#", "sports", False),
        ("#", "sport/tennis", True),
        ("#", "/", True),
        # 4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("+/tennis/#", "sport/tennis", True),
        ("sport/+/player1", "sport/tennis/player1", True),
        # 4.7.2
        ("#", "$SYS/monitor", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        # 4.7.3: levels are compared byte by byte, empty ones too
        ("ACCOUNTS", "Accounts", False),
        ("/finance", "finance", False),
        ("finance/", "finance", False),
        ("a//b", "a/b", False),
        ("a//b", "a//b", True),
        ("a/+/b", "a//b", True),
    ],
)
def test_examples(topic_filter: str, topic: str, expected: bool) -> None:
    assert filter_matches(topic_filter.encode(), topic.encode()) is expected


levels = st.sampled_from(["", "a", "b", "ab", "ü", "$"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.tuples(st.lists(levels | st.just("+"), max_size=4), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)


@given(filters, topics)
def test_agrees_with_paho(topic_filter: str, topic: str) -> None:
    assert filter_matches(topic_filter.encode(), topic.encode()) == topic_matches_sub(topic_filter, topic)
