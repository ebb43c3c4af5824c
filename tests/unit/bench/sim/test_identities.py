"""Identities of devices: patterns, a CSV file, and files that cannot be used."""

from pathlib import Path

import pytest
from kaa_bench import extras
from kaa_bench.errors import BenchError
from kaa_bench.sim.identities import Identities, Identity, check_files
from kaa_bench.sim.scenario import Scenario, parse


def scenario(*lines: str) -> Scenario:
    keys = ["name: m", "protocol: mqtt", "devices: 2", "interval: 1s", *lines]
    if not any(line.startswith("payload") for line in lines):
        keys.append("payload: {x: {kind: counter}}")
    fleet = "\n    ".join(keys)
    return parse(f"name: x\nduration: 1m\nfleets:\n  - {fleet}\n", "x.yml")


def identities(*lines: str) -> Identities:
    given = scenario(*lines)
    return Identities(given.fleets[0], given.target)


def test_patterns_have_the_number_of_the_device() -> None:
    found = identities("token: t-{device}", "user: 'u{device}'", "password: p", "sources: [127.0.0.1, '::1']")
    assert found.of(1) == Identity("t-1", "u1", "p")
    assert [found.source(number) for number in range(3)] == [("127.0.0.1", 0), ("::1", 0), ("127.0.0.1", 0)]
    assert found.tls(0) is None


def test_a_file_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text("user,token,password\nann,one,secret\n,two,\n")
    found = identities(f"tokens: {path}")
    assert [found.of(number) for number in range(2)] == [Identity("one", "ann", "secret"), Identity("two")]
    # A line without a user has that of the fleet.
    assert identities(f"tokens: {path}", "user: 'u{device}'").of(1) == Identity("two", "u1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("token\none\n", "has 1 tokens, and 2 are needed"),
        ("one\ntwo\nthree\n", "the first line names the columns"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_of_tokens(tmp_path: Path, text: str | bytes | None, said: str) -> None:
    path = tmp_path / "tokens.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BenchError, match=said):
        check_files(scenario(f"tokens: {path}"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("payload-files: [/no/such]",), "/no/such cannot be read"),
        (
            ("transport: tls", "cert-file: '/no/{device}'", "key-file: /no"),
            "cert-file /no/0 cannot be used",
        ),
    ],
)
def test_files_are_looked_at_before_the_run(lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        check_files(scenario(*lines))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="the extra `clients` of kaa-bench: pip install aiocoap aiomqtt"):
        check_files(scenario("clients: independent"))
