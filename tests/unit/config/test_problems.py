"""Configuration: every wrong key is named with its path, its line and what was expected."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kaa_gateway.config import check, load
from kaa_gateway.config.keys import Document
from kaa_gateway.config.schema import keys
from kaa_gateway.yaml_tree import MAX_DEPTH, TOO_LARGE

from tests.support.config import MQTT_PORT, Write, problems, writer

MQTT_TCP = "kaa.kpc.transports.mqtt.tcp"
DCX = "kaa.extension-instances.dcx"
DCX_AWARE = f"{DCX}.endpoint-aware"

A_PORT = "an integer from 1 to 65535"
SECONDS = "a number of seconds from 0.1 to 3600"
SIZE = "a size (such as 65536 or 64KiB) from 1KiB to 1GiB"
NAME = "a name of 1 to 128 letters, digits, _ and -, not starting with -"
PREFIX = "an absolute URL path without a trailing slash, such as /kpc, or nothing"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("text", "line", "path", "nearest"),
        [
            (
                "\nkaa.kpc.transports.mqtt.tcp: {enabled: true,\nprot: 1}",
                3,
                f"{MQTT_TCP}.prot",
                f"{MQTT_TCP}.port",
            ),
            ("\nkaa.kpc.transport.http: 1", 2, "kaa.kpc.transport.http", "kaa.kpc.transports"),
            ("http: {port: 80}", 1, "http", "kaa.kpc.transports.http"),
            ("kaa.kpc.http.port: 80", 1, "kaa.kpc.http.port", "kaa.kpc.transports.http.port"),
            (f"{MQTT_PORT}.x: 80", 1, f"{MQTT_PORT}.x", MQTT_PORT),
            ("kaa.extension-instances:\n  dcx: {endpointAware: true}", 2, f"{DCX}.endpointAware", DCX_AWARE),
            ("kaa.extension-instances:\n  dcx.endpoint: true", 2, f"{DCX}.endpoint", DCX_AWARE),
            ("Server: {port: 80}", 1, "Server", "server"),
        ],
    )
    def test_names_path_line_and_nearest_key(
        self, write: Write, text: str, line: int, path: str, nearest: str
    ) -> None:
        file = write(text)
        message = f'service-config.yml:{line}: {path}: unknown key; did you mean "{nearest}"?'
        assert problems(file) == [message]
        config = load(file, {"KAA_KPC_UNKNOWN_KEYS": "warn"})
        assert [warning.removeprefix(f"{file.parent}/") for warning in config.warnings] == [message]

    @pytest.mark.parametrize("key", ["'': 1", "kaa..kpc: 1", ".kaa: 1", "kaa.: 1", "a\\b: 1", '"a\\nb": 1'])
    def test_odd_keys_are_unknown_and_stay_in_one_line(self, write: Write, key: str) -> None:
        (line,) = problems(write(key))
        assert "\n" not in line
        assert "unknown key; did you mean " in line

    def test_other_problems_stay_errors(self, write: Write) -> None:
        found = check(write(f"x: 1\n{MQTT_PORT}: x"), {"KAA_KPC_UNKNOWN_KEYS": "warn"})
        assert [problem.severity for problem in found] == ["warning", "error"]

    @pytest.mark.parametrize("value", ["error", "warn"])
    def test_choices(self, write: Write, value: str) -> None:
        assert problems(write(""), {"KAA_KPC_UNKNOWN_KEYS": value}) == []

    def test_wrong_choice(self, write: Write) -> None:
        assert problems(write(""), {"KAA_KPC_UNKNOWN_KEYS": "ignore"}) == [
            'KAA_KPC_UNKNOWN_KEYS: expected error or warn, got "ignore"'
        ]


class TestWrongValues:
    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            (MQTT_PORT, "abc", A_PORT),
            (MQTT_PORT, "0", A_PORT),
            (MQTT_PORT, "65536", A_PORT),
            (MQTT_PORT, "1.5", A_PORT),
            ("kaa.kpc.workers", "257", "an integer from 1 to 256"),
            ("kaa.kpc.transports.http.enabled", "maybe", "true or false"),
            ("kaa.kpc.nats.ping-timeout", ".inf", SECONDS),
            ("kaa.kpc.nats.ping-timeout", ".nan", SECONDS),
            ("kaa.kpc.nats.ping-timeout", "-1", SECONDS),
            ("kaa.kpc.transports.http.path-prefix", "kpc", PREFIX),
            ("kaa.kpc.transports.http.path-prefix", "/kpc/", PREFIX),
            ("kaa.kpc.limits.waiting-bytes", "2kb", SIZE),
            ("kaa.kpc.limits.waiting-bytes", "2GiB", SIZE),
            ("kaa.kpc.transports.bind-address", "localhost", "an IP address, or * for all of IPv4 and IPv6"),
            ("kaa.kpc.log.level", "verbose", "one of debug, info, warning, error"),
            ("kaa.kpc.identity.provider", "ldap", "one of open, static, ecap"),
            ("service.instance.name", "a.b", NAME),
            ("service.instance.name", "kaa.>", NAME),
            ("service.instance.replica.id", "a b", NAME),
        ],
    )
    def test_text_is_repeated(self, write: Write, key: str, value: str, expected: str) -> None:
        message = f'service-config.yml:2: {key}: expected {expected}, got "{value}"'
        assert problems(write(f"# a comment\n{key}: {value}\n")) == [message]

    @pytest.mark.parametrize(
        ("value", "shown"),
        [("9" * 5000, "9" * 60 + "…"), ('"a\\nb"', "a\\nb"), ('"1883\\n"', "1883\\n"), ("\u0661", "\u0661")],
    )
    def test_text_is_escaped_and_shortened(self, write: Write, value: str, shown: str) -> None:
        message = f'service-config.yml:1: {MQTT_PORT}: expected {A_PORT}, got "{shown}"'
        assert problems(write(f"{MQTT_PORT}: {value}")) == [message]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            (MQTT_PORT, "[1]", f"expected {A_PORT}, got a list"),
            (MQTT_PORT, "{a: 1}", f"expected {A_PORT}, got a mapping"),
            ("kaa.kpc.transports", "5", "expected a mapping, got text"),
            ("kaa.applications", "[a]", "expected a mapping, got a list"),
            ("kaa.extension-instances.dcx", "true", "expected a mapping, got text"),
            ("kaa.extension-instances.dcx", "!!set {a: }", "this YAML tag is not supported"),
            (MQTT_PORT, "!!python/object/apply:os.getpid []", "this YAML tag is not supported"),
            (MQTT_PORT, "!!binary MTg4Mw==", "this YAML tag is not supported"),
        ],
    )
    def test_names_path_line_and_expectation(self, write: Write, key: str, value: str, message: str) -> None:
        assert problems(write(f"# a comment\n{key}: {value}\n")) == [
            f"service-config.yml:2: {key}: {message}"
        ]

    def test_list_element_has_its_own_line(self, write: Write) -> None:
        key = "kaa.applications.demo.versions.v1.allowed-extension-instances"
        assert problems(write(f"{key}:\n- dcx\n- kaa.>\n")) == [
            f'service-config.yml:3: {key}: expected {NAME}, got "kaa.>"'
        ]
        assert problems(write(f"{key}: [~]\n")) == [
            f"service-config.yml:1: {key}: expected {NAME}, got nothing"
        ]

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("kaa.extension-instances: {'a b': }", "kaa.extension-instances.a b"),
            ("kaa.extension-instances: {'*': {endpoint-aware: true}}", "kaa.extension-instances.*"),
            ("kaa.applications: {'a/b': }", "kaa.applications.a/b"),
            ("kaa.applications.a.versions: {v+: }", "kaa.applications.a.versions.v+"),
        ],
    )
    def test_names_of_the_operator(self, write: Write, text: str, path: str) -> None:
        (line,) = problems(write(text))
        assert line.startswith(f"service-config.yml:1: {path}: expected a name of 1 to ")

    def test_everything_wrong_is_listed_in_the_order_of_lines(self, write: Write) -> None:
        lines = problems(write(f"{MQTT_PORT}: x\nserver.prot: 1\nkaa.kpc.workers: 0\nservice: []"))
        assert [line.split(": ")[0] for line in lines] == [
            f"service-config.yml:{line}" for line in (1, 2, 3, 4)
        ]


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("kaa:\n  kpc: {workers: 1\n", 3),
            ("kaa: a: b", 1),
            ("\tkaa: 1", 1),
            ("kaa: *nowhere", 1),
            ("a: 1\n---\nb: 2", 2),
            ("a: &x 1\nb: &x 2", 2),
            ("a: 1\n? [b]\n: c", 2),
        ],
    )
    def test_syntax_errors_name_the_line(self, write: Write, text: str, line: int) -> None:
        assert any(each.startswith(f"service-config.yml:{line}: ") for each in problems(write(text)))

    def test_control_characters(self, write: Write) -> None:
        (line,) = problems(write("kaa: \x07"))
        assert line.startswith("service-config.yml: not YAML: unacceptable character")

    def test_not_a_mapping(self, write: Write) -> None:
        assert problems(write("- kaa")) == ["service-config.yml:1: expected a mapping, got a list"]

    @pytest.mark.parametrize(
        ("text", "path", "line", "first"),
        [
            ("server:\n  port: 1\n  port: 2", "server.port", 3, 2),
            ("server:\n  port: 1\nserver.port: 1", "server.port", 3, 2),
            ("server: {port: 1}\nserver: {}", "server", 2, 1),
            (
                "kaa.extension-instances:\n  dcx.endpoint-aware: true\n  dcx: {endpoint-aware: }",
                DCX_AWARE,
                3,
                2,
            ),
        ],
    )
    def test_duplicate_keys(self, write: Write, text: str, path: str, line: int, first: int) -> None:
        message = f"service-config.yml:{line}: {path}: the key is here twice, first in line {first}"
        assert problems(write(text)) == [message]

    def test_alias_bomb(self, write: Write) -> None:
        bomb = "a: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12))
        (line,) = problems(write(bomb))
        assert line.endswith(TOO_LARGE)

    def test_alias_of_itself(self, write: Write) -> None:
        assert problems(write("\nkaa: &kaa\n  kpc: *kaa\n")) == [f"service-config.yml:2: {TOO_LARGE}"]

    def test_deep_nesting(self, write: Write) -> None:
        assert problems(write("[" * 5000)) == [f"service-config.yml: {TOO_LARGE}"]
        nested = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
        assert problems(write(f"\nkaa: {nested}")) == [f"service-config.yml:2: {TOO_LARGE}"]


_words = st.sampled_from(
    [name for key in keys(Document, lambda _: ["dcx", "v.1"]) for name in (*key.path, ".".join(key.path))]
)
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | _words
_documents = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_words | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


class TestAnything:
    @given(document=_documents)
    @settings(max_examples=150, deadline=None)
    def test_any_document_loads_or_is_a_config_error(
        self, document: object, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        self._try(yaml.safe_dump(document, allow_unicode=True), tmp_path_factory)

    @given(text=st.text(alphabet="ab:-[]{}&*!|>'\"%@#,? \n\t<=~.0x", max_size=40))
    @settings(max_examples=300, deadline=None)
    @example(text="!!int ''")
    @example(text="kaa: !!bool x")
    @example(text="!<tag:yaml.org,2002:map> x")
    @example(text="? {a: b}\n: c")
    @example(text="<<: 1")
    @example(text="<<: [*a]")
    @example(text="&a <<: *a")
    def test_any_text_loads_or_is_a_config_error(
        self, text: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        self._try(text, tmp_path_factory)

    def _try(self, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.getbasetemp() / "anything.yml"
        path.write_text(text, encoding="utf-8", errors="replace")
        problems(path)


class TestTracing:
    @pytest.mark.parametrize("ratio", ["1", "1.0", "0.5", "0.000001", "1e-06"])
    def test_ratios(self, write: Write, ratio: str) -> None:
        file = write(f"kaa.kpc.tracing.sample-ratio: {ratio}")
        assert problems(file) == []
        assert load(file, {}).tracing.sample_ratio == float(ratio)

    @pytest.mark.parametrize("ratio", ["0", "1.1", "-0.5", "1e-7", ".", "1%", "nan"])
    def test_what_is_no_ratio(self, write: Write, ratio: str) -> None:
        (problem,) = problems(write(f"kaa.kpc.tracing.sample-ratio: '{ratio}'"))
        assert "kaa.kpc.tracing.sample-ratio: expected a number from 0.000001 to 1" in problem

    @pytest.mark.parametrize(
        "endpoint",
        ["collector:4318", "grpc://c:4317", "http://", "http://user:secret@c", "http://c/?key=secret"],
    )
    def test_what_is_no_collector_is_not_repeated(self, write: Write, endpoint: str) -> None:
        (problem,) = problems(write(f"kaa.kpc.tracing.endpoint: '{endpoint}'"))
        assert "kaa.kpc.tracing.endpoint: expected http://host[:port][/path]" in problem
        assert "secret" not in problem

    def test_without_the_extra(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write("kaa.kpc.tracing:\n  enabled: true")
        assert problems(file) == []
        for absent in ("opentelemetry.no_such.module", "json.no_such_module"):
            monkeypatch.setattr("kaa_gateway.config.cross_checks.TRACING_EXTRA", absent)
            (problem,) = problems(file)
            assert problem.startswith("service-config.yml:2: kaa.kpc.tracing.enabled: needs the extra")
