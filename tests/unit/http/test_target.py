"""From the URL of a request to the resource path of 1/KP."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.http.target import resource_path

PATHS = {
    b"/kp1/v/dcx/token/json": b"kp1/v/dcx/token/json",
    b"/kp1/v/dcx/token/json/": b"kp1/v/dcx/token/json/",
    b"/kp1/v/dcx//json": b"kp1/v/dcx//json",
    b"/kp1/": b"kp1/",
    b"/kp1/v?a=/b&c=%00": b"kp1/v",
    b"/kpc/kp1/v/x": b"kp1/v/x",
    b"/%6bp1/v/a%20b%C3%A4": "kp1/v/a bä".encode(),
    b"/kp1/v/%2541": b"kp1/v/%41",
    b"/kp1/v/%2e%2e/x/../y/.": b"kp1/v/../x/../y/.",
    b"/kp1/v/a+b%2B%23": b"kp1/v/a+b+#",
    b"http://host:80/kp1/v/x?y": b"kp1/v/x",
    b"HTTPS://host/kpc/kp1/v/x": b"kp1/v/x",
}

REFUSALS = {
    b"/": 404,
    b"/kp1": 404,
    b"/kp1x/v": 404,
    b"//kp1/v": 404,
    b"/kpckp1/v": 404,
    b"/kpc/kpc/kp1/v": 404,
    b"/other/kp1/v": 404,
    b"/KP1/v": 404,
    b"?/kp1/v": 400,
    b"*": 400,
    b"host:80": 400,
    b"http://host": 400,
    b"http://host?/kp1/v": 400,
    b"ftp://host/kp1/v": 400,
    b"/kp1/v#x": 400,
    b"/kp1/a%2Fb": 400,
    b"/kp1/a%2fb": 400,
    b"/kp1/a%00": 400,
    b"/kp1/a%0d%0a": 400,
    b"/kp1/a%7f": 400,
    b"/kp1/a%C2%85": 400,
    b"/kp1/a%ff": 400,
    b"/kp1/a%C3": 400,
    b"/kp1/a%": 400,
    b"/kp1/a%4": 400,
    b"/kp1/a%4g": 400,
    b"/kp1/a%4?1": 400,
}


@pytest.mark.parametrize("target", PATHS)
def test_resource_path(target: bytes) -> None:
    assert resource_path(target, b"/kpc") == PATHS[target]


@pytest.mark.parametrize("target", REFUSALS)
def test_refusal(target: bytes) -> None:
    assert resource_path(target, b"/kpc") == REFUSALS[target]


def test_without_a_prefix_nothing_may_stand_before_kp1() -> None:
    assert resource_path(b"/kp1/v", b"") == b"kp1/v"
    assert resource_path(b"/kpc/kp1/v", b"") == 404


@given(st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="/"), max_size=40))
def test_a_level_that_was_encoded_comes_back(level: str) -> None:
    encoded = "".join(f"%{byte:02x}" for byte in level.encode()).encode()
    assert resource_path(b"/kp1/" + encoded, b"") == b"kp1/" + level.encode()


@given(st.binary(min_size=1, max_size=60))
def test_any_target_is_survived(target: bytes) -> None:
    result = resource_path(target, b"/kpc")
    assert result in (400, 404) or (isinstance(result, bytes) and result.startswith(b"kp1/"))
