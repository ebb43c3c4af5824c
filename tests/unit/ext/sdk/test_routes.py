"""Which handler a resource path finds."""

import pytest
from kaa_ext.sdk.routes import Routes


def routes(*patterns: str) -> Routes:
    table = Routes()
    for pattern in patterns:
        table.add(pattern, lambda request: None, "requested")
    return table


def found(table: Routes, resource_path: str) -> tuple[str, dict[str, str]] | None:
    hit = table.find(resource_path)
    return None if hit is None else (hit[0].pattern, dict(hit[1]))


def test_exact_path_differs_from_the_same_with_a_slash_more() -> None:
    """1/KP: `a/b`, `/a/b` and `a/b/` differ."""
    table = routes("/json")
    assert found(table, "/json") == ("/json", {})
    assert [found(table, path) for path in ("json", "/json/", "/JSON", "/json/x", "")] == [None] * 5


def test_a_name_in_braces_is_one_level_and_not_an_empty_one() -> None:
    table = routes("/plain/{metric}", "/{a}/to/{b}")
    assert found(table, "/plain/température") == ("/plain/{metric}", {"metric": "température"})
    assert found(table, "/x/to/y") == ("/{a}/to/{b}", {"a": "x", "b": "y"})
    assert [found(table, path) for path in ("/plain/", "/plain/a/b", "/plain", "//to/b")] == [None] * 4


def test_characters_of_a_pattern_are_literal() -> None:
    table = routes("/a.b/{x}")
    assert found(table, "/aXb/1") is None
    assert found(table, "/a.b/1") == ("/a.b/{x}", {"x": "1"})


@pytest.mark.parametrize("resource_path", ["", "/", "/any/thing", "/line\nbreak", "no/slash"])
def test_catch_all_takes_every_path_even_the_empty_one(resource_path: str) -> None:
    assert found(routes("*"), resource_path) == ("*", {})


def test_the_most_specific_pattern_wins_whatever_the_order_of_registration() -> None:
    patterns = ["*", "/config/*", "/config/json/{name}", "/config/json/default"]
    for order in (patterns, patterns[::-1]):
        table = routes(*order)
        assert found(table, "/config/json/default") == ("/config/json/default", {})
        assert found(table, "/config/json/network") == ("/config/json/{name}", {"name": "network"})
        assert found(table, "/config/xml") == ("/config/*", {})
        assert found(table, "/other") == ("*", {})


@pytest.mark.parametrize("pattern", ["/{", "/}", "/{a b}", "/{}", "/*/x", "/a*b", "**", "/{a}/{a}", "/{1}"])
def test_malformed_patterns_are_refused_at_registration(pattern: str) -> None:
    with pytest.raises(ValueError, match="resource path"):
        routes(pattern)


@pytest.mark.parametrize("pattern", ["/json", "/{a}", "*"])
def test_a_path_has_one_handler(pattern: str) -> None:
    with pytest.raises(ValueError, match="has a handler already"):
        routes(pattern, pattern)
