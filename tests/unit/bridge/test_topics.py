"""Templates of topics, and what is made of topics with them."""

import pytest
from kaa_gateway.bridge.topics import TopicMapping, apply_first
from kaa_gateway.errors import ConfigError


@pytest.mark.parametrize(
    ("source", "target", "topic", "expected"),
    [
        ("a/{x}/b", "kp1/v/dcx/{x}/json", "a/1/b", "kp1/v/dcx/1/json"),
        ("a/{x}/b", "kp1/v/dcx/{x}/json", "a/1/c", None),
        ("a/{x}/b", "kp1/v/dcx/{x}/json", "a/1/b/c", None),
        ("a/{x}/b", "kp1/v/dcx/{x}/json", "a/1", None),
        ("{x}/{y}", "{y}/{x}", "1/2", "2/1"),
        ("a/{x}/#", "kp1/v/dcx/{x}/#", "a/1/b/c", "kp1/v/dcx/1/b/c"),
        ("a/{x}/#", "kp1/v/dcx/{x}/#", "a/1", "kp1/v/dcx/1"),
        ("a/{x}/#", "b/{x}", "a/1/b", "b/1"),
        ("a", "b", "a", "b"),
    ],
)
def test_mapping(source: str, target: str, topic: str, expected: str | None) -> None:
    assert TopicMapping.of("key", source, target).apply(topic) == expected


def test_the_first_that_matches_counts() -> None:
    mappings = [TopicMapping.of("key", "a/{x}", "first/{x}"), TopicMapping.of("key", "a/#", "second/#")]
    assert [apply_first(mappings, topic) for topic in ("a/1", "a/1/2", "b")] == [
        "first/1",
        "second/1/2",
        None,
    ]


def test_topic_filters() -> None:
    assert TopicMapping.of("key", "a/{x}/{y}/#", "b/{x}").topic_filter == "a/+/+/#"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("", "b"),
        ("a", ""),
        ("a/+", "b"),
        ("a/#/b", "c"),
        ("a/{x", "b"),
        ("a/{x}", "b/{y}"),
        ("a", "b/#"),
        ("{x}/{x}", "a"),
    ],
)
def test_what_is_wrong(source: str, target: str) -> None:
    with pytest.raises(ConfigError) as error:
        TopicMapping.of("key", source, target)
    assert error.value.detail.startswith("key: ")
