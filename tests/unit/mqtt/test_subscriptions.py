"""Topic filters and the topic names that they match, beside what paho says (MQTT 3.1.1 section 4.7)."""

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaa_gateway.mqtt.subscriptions import filter_matches, shown_filter

few_levels = st.sampled_from(["", "a", "b", "ab", "$a", "ü"])
topics = st.lists(few_levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.lists(few_levels | st.just("+"), min_size=1, max_size=4)
    .flatmap(lambda parts: st.sampled_from([parts, [*parts, "#"], ["#"]]))
    .map("/".join)
    .filter(bool)
)


@settings(max_examples=1000)
@given(filters, topics)
def test_filters_match_as_paho_says(topic_filter: str, topic: str) -> None:
    expected = paho.topic_matches_sub(topic_filter, topic)
    assert filter_matches(topic_filter.encode(), topic.encode()) == expected


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # The examples of 4.7.1.2, 4.7.1.3 and 4.7.2.
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/a", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        # 4.7.3: levels and case are what they are.
        ("a", "A", False),
        ("/a", "a", False),
        ("a/", "a", False),
        ("a//b", "a/b", False),
        ("a/b", "a/bc", False),
        ("a/bc", "a/b", False),
    ],
)
def test_filter_examples_of_the_specification(topic_filter: str, topic: str, expected: bool) -> None:
    assert filter_matches(topic_filter.encode(), topic.encode()) is expected


@pytest.mark.parametrize(
    ("topic_filter", "shown"),
    [
        ("kp1/v1/dcx/0123456789/json", "kp1/v1/dcx/0123…/json"),
        ("kp1/v1/dcx/abc/#", "kp1/v1/dcx/a…/#"),
        ("kp1/v1/dcx/secret", "kp1/v1/dcx/sec…"),
        ("kp1/+/+/+/json/status", "kp1/+/+/+/json/status"),
        ("kp1/v1/dcx/#", "kp1/v1/dcx/#"),
        ("my/own/answers/of/mine", "my/own/answers/of/mine"),
        ("#", "#"),
    ],
)
def test_tokens_in_filters_are_not_shown(topic_filter: str, shown: str) -> None:
    assert shown_filter(topic_filter) == shown
