"""Configuration: the typed result, where it comes from, what keys must agree on, secrets."""

from pathlib import Path

import pytest
from kaa_gateway.config import Config, check, config_path, load, masked
from kaa_gateway.config.keys import Document
from kaa_gateway.config.keys.service import random_replica_id
from kaa_gateway.config.loading import DEFAULT_PATH
from kaa_gateway.config.schema import keys

from tests.support.config import MQTT_PORT, Write, problems, writer

KPC_FILE = """\
service:
  instance:
    name: kpc                 # unique in the cluster
    replica.id: kpc-1
  graceful-shutdown: 30       # seconds
server:
  port: 8008                  # management REST API
kaa:
  applications:
    demo_application:
      versions:
        demo_application_v1:
          allowed-extension-instances: [dcx, tsx]
  extension-instances:
    dcx:
      endpoint-aware: true
    tsx:
  kpc:
    transports:
      mqtt:
        tcp:       {enabled: true, port: 1883}
        tls:       {enabled: false, port: 8883, cert-file: /etc/kpc/cert.pem, key-file: /etc/kpc/key.pem}
        websocket: {enabled: false, port: 80}     # served on path /ws
"""

DEMO_V1 = "KAA_APPLICATIONS_DEMO_APPLICATION_VERSIONS_DEMO_APPLICATION_V1"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


class TestResult:
    def test_defaults_without_file(self) -> None:
        config = load(None, {})
        assert config.service.instance.name == "kpc"
        assert config.service.graceful_shutdown == 30
        assert config.server.port == 8008
        assert config.transports.mqtt.tcp.port == 1883
        assert config.transports.mqtt.tcp.enabled
        assert not config.transports.mqtt.tls.enabled
        assert config.transports.http.port == 8080
        assert config.transports.http.max_header_size == 16 * 1024
        assert config.nats.urls == ("nats://nats:4222",)
        assert config.nats.max_pending_bytes == 64 * 1024 * 1024
        assert config.identity.provider == "open"
        assert config.workers == 1
        assert config.app_versions == {}
        assert config.warnings == ()

    def test_constructor_has_the_same_defaults(self) -> None:
        loaded = load(None, {"SERVICE_INSTANCE_REPLICA_ID": "r"})
        built = Config(service=loaded.service)
        assert built == loaded

    def test_replica_id_is_random_and_kept_by_the_process(self) -> None:
        first, second = (load(None, {}).service.instance.replica.id for _ in range(2))
        assert first.startswith("kpc-")
        assert first == second
        random_replica_id.cache_clear()
        assert load(None, {}).service.instance.replica.id != first

    def test_kpc_file_starts_unchanged(self, write: Write) -> None:
        config = load(write(KPC_FILE), {})
        assert config.warnings == ()
        assert config.service.instance.replica.id == "kpc-1"
        version = config.app_versions["demo_application_v1"]
        assert version.application == "demo_application"
        assert version.allowed == {"dcx", "tsx"}
        assert set(config.extension_instances) == {"dcx", "tsx"}
        assert config.extension_instances["tsx"].endpoint_aware

    @pytest.mark.parametrize("text", ["", "# nothing", "---\n", "kaa:\n  kpc:\n", "kaa: {kpc: {workers: }}"])
    def test_what_is_empty_has_defaults(self, write: Write, text: str) -> None:
        assert load(write(text), {}).workers == 1

    @pytest.mark.parametrize(
        "text",
        [
            "kaa: {kpc: {transports: {mqtt: {tcp: {port: 1884}}}}}",
            "kaa.kpc.transports.mqtt.tcp.port: 1884",
            "kaa.kpc: {transports.mqtt: {tcp.port: 1884}}",
            "kaa.kpc.transports.mqtt.tcp: {port: 1884}\nkaa: {kpc: {workers: 2}}",
            "kaa: {kpc.transports.mqtt.tcp: {port: '1884'}}",
        ],
    )
    def test_dotted_keys_are_nested_keys(self, write: Write, text: str) -> None:
        assert load(write(text), {}).transports.mqtt.tcp.port == 1884

    def test_dotted_keys_through_names_of_the_operator(self, write: Write) -> None:
        config = load(
            write(
                "kaa.applications.demo.versions.demo.v1.2.allowed-extension-instances: [dcx]\n"
                "kaa.applications.demo.versions: {demo.v2: {allowed-extension-instances: [dcx]}}\n"
                "kaa.extension-instances.dcx.endpoint-aware: false\n"
            ),
            {},
        )
        assert set(config.app_versions) == {"demo.v1.2", "demo.v2"}
        assert config.app_versions["demo.v1.2"].application == "demo"
        assert not config.extension_instances["dcx"].endpoint_aware

    def test_names_that_yaml_reads_as_other_types_stay_text(self, write: Write) -> None:
        config = load(
            write(
                "service: {instance: {name: 010, replica.id: 1e3}}\n"
                "kaa: {applications: {1: {versions: {1.0: {allowed-extension-instances: [yes, 2]}}}},\n"
                "      extension-instances: {yes: , 2: }}"
            ),
            {},
        )
        assert config.service.instance.name == "010"
        assert config.service.instance.replica.id == "1e3"
        assert config.app_versions["1.0"].allowed == {"yes", "2"}

    def test_anchors_and_merge_keys(self, write: Write) -> None:
        config = load(
            write(
                "kaa:\n"
                "  applications:\n"
                "    a: {versions: {v1: &all {allowed-extension-instances: &list [dcx]}}}\n"
                "    b: {versions: {v2: *all, v3: {<<: *all}}}\n"
                "    d: {versions: {v4: {<<: [*all], allowed-extension-instances: []}}}\n"
                "    c: {versions: {v5: {allowed-extension-instances: *list}}}\n"
                "  extension-instances: {dcx: }\n"
            ),
            {},
        )
        allowed = {name: set(version.allowed) for name, version in config.app_versions.items()}
        assert allowed == {"v1": {"dcx"}, "v2": {"dcx"}, "v3": {"dcx"}, "v4": set(), "v5": {"dcx"}}

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("65536", 65536),
            ("64KiB", 65536),
            ("64 KiB", 65536),
            ("2MiB", 2 << 20),
            ("1GiB", 1 << 30),
            ("99999B", 99999),
        ],
    )
    def test_sizes(self, write: Write, text: str, size: int) -> None:
        assert load(write(f"kaa.kpc.limits.waiting-bytes: {text}"), {}).limits.waiting_bytes == size

    @pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("0.5", 0.5)])
    def test_seconds(self, write: Write, text: str, seconds: float) -> None:
        assert load(write(f"kaa.kpc.nats.ping-timeout: {text}"), {}).nats.ping_timeout == seconds

    @pytest.mark.parametrize(
        ("text", "value"), [("true", True), ("'true'", True), ("yes", True), ("OFF", False), ("False", False)]
    )
    def test_booleans(self, write: Write, text: str, value: bool) -> None:
        assert load(write(f"kaa.kpc.transports.http.enabled: {text}"), {}).transports.http.enabled is value

    def test_allowed_but_not_declared_is_endpoint_aware_and_warned_of(self, write: Write) -> None:
        path = write(
            "kaa.applications.demo.versions.v1:\n"
            "  allowed-extension-instances: [cex, dcx]\n"
            "kaa.extension-instances.dcx:\n"
        )
        config = load(path, {})
        assert config.extension_instances["cex"].endpoint_aware
        (warning,) = config.warnings
        assert (
            "service-config.yml:2: kaa.applications.demo.versions.v1.allowed-extension-instances: " in warning
        )
        assert warning.endswith("taken as endpoint-aware: cex")


class TestEnvironment:
    def test_variables_of_the_license_mean_nothing(self, write: Write) -> None:
        """KPC's image has them; a manifest that still sets them starts the gateway as before."""
        license_ = {
            "KAA_LICENSE_CERT_PATH": "/run/license/license.p12",
            "KAA_LICENSE_CERT_PASSWORD": "secret",
        }
        assert load(write(KPC_FILE), license_).warnings == load(write(KPC_FILE), {}).warnings

    def test_wins_over_the_file(self, write: Write) -> None:
        config = load(
            write(KPC_FILE),
            {
                "KAA_KPC_TRANSPORTS_MQTT_TCP_PORT": "2883",
                "SERVICE_INSTANCE_REPLICA_ID": "other",
                "KAA_EXTENSION_INSTANCES_TSX_ENDPOINT_AWARE": "false",
                f"{DEMO_V1}_ALLOWED_EXTENSION_INSTANCES": "tsx",
            },
        )
        assert config.transports.mqtt.tcp.port == 2883
        assert config.service.instance.replica.id == "other"
        assert not config.extension_instances["tsx"].endpoint_aware
        assert config.app_versions["demo_application_v1"].allowed == {"tsx"}
        assert config.warnings == ()

    def test_replaces_a_wrong_value_of_the_file(self, write: Write) -> None:
        assert (
            load(write(f"{MQTT_PORT}: x"), {"KAA_KPC_TRANSPORTS_MQTT_TCP_PORT": "2"}).transports.mqtt.tcp.port
            == 2
        )

    def test_every_key_has_a_variable_of_its_own(self) -> None:
        variables = [key.variable for key in keys(Document, lambda _: ["x"])]
        assert len(set(variables)) == len(variables)

    def test_every_variable_is_read(self) -> None:
        for key in keys(Document, lambda _: []):
            found = [str(problem) for problem in check(None, {key.variable: "\x01 @"})]
            if found:
                assert found[0].startswith(f"{key.variable}: ")
            else:
                assert key.variable.endswith("_FILE"), "only the path of a file may be anything"

    def test_nats_urls(self) -> None:
        config = load(
            None, {"NATS_URLS": "nats://user:pass@one:4222, tls://two,three:4333, nats://[::1]:4222/"}
        )
        assert config.nats.urls == (
            "nats://user:pass@one:4222",
            "tls://two",
            "nats://three:4333",
            "nats://[::1]:4222",
        )

    def test_wrong_value(self) -> None:
        assert problems(None, {"KAA_KPC_TRANSPORTS_MQTT_TCP_PORT": "abc"}) == [
            'KAA_KPC_TRANSPORTS_MQTT_TCP_PORT: expected an integer from 1 to 65535, got "abc"'
        ]

    def test_empty_text_is_a_value(self, write: Write) -> None:
        path = write("kaa.kpc.transports.http.path-prefix: /kpc\nkaa.kpc.nats.credentials-file: /a")
        environ = {"KAA_KPC_TRANSPORTS_HTTP_PATH_PREFIX": "", "KAA_KPC_NATS_CREDENTIALS_FILE": ""}
        config = load(path, environ)
        assert config.transports.http.path_prefix == ""
        assert config.nats.credentials_file is None
        assert problems(None, {"KAA_KPC_WORKERS": ""}) == [
            'KAA_KPC_WORKERS: expected an integer from 1 to 256, got ""'
        ]

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("KAA_KPC_TRANSPORTS_MQT_TCP_PORT", "KAA_KPC_TRANSPORTS_MQTT_TCP_PORT"),
            ("KAA_KPC_NATS_URLS", "NATS_URLS"),
            ("KAA_EXTENSION_INSTANCES_DCX_ENDPOINT_AWAR", "KAA_EXTENSION_INSTANCES_DCX_ENDPOINT_AWARE"),
        ],
    )
    def test_misspelt_is_a_warning(self, write: Write, name: str, nearest: str) -> None:
        assert load(write(KPC_FILE), {name: "1"}).warnings == (
            f"{name}: sets no key; did you mean {nearest}?",
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("KAA_KPC_SERVICE_HOST", "10.0.0.1"),
            ("KAA_KPC_SERVICE_PORT", "1883"),
            ("KAA_KPC_SERVICE_PORT_MQTT_TCP", "1883"),
            ("KAA_KPC_PORT", "tcp://10.0.0.1:1883"),
            ("KAA_KPC_PORT_8008_TCP", "tcp://10.0.0.1:8008"),
            ("KAA_KPC_PORT_8008_TCP_PORT", "8008"),
            ("KAA_KPC_PORT_8008_TCP_PROTO", "tcp"),
            ("KAA_KPC_MQTT_PORT_1883_TCP_ADDR", "10.0.0.1"),
            ("KAA_KPC_UNKNOWN_KEYS", "warn"),
            ("KAA_SOMETHING_ELSE", "x"),
            ("PATH", "/bin"),
        ],
    )
    def test_what_others_set_is_ignored(self, name: str, value: str) -> None:
        assert problems(None, {name: value}) == []

    def test_service_link_in_a_variable_of_ours_is_warned_of(self) -> None:
        config = load(None, {"SERVER_PORT": "tcp://10.0.0.1:80"})
        assert config.server.port == 8008
        assert config.warnings == (
            "SERVER_PORT: ignored, because its value is that of a Kubernetes service link",
        )

    def test_variable_of_two_keys(self, write: Write) -> None:
        path = write("kaa.extension-instances: {a-b: , a_b: }")
        assert problems(path, {"KAA_EXTENSION_INSTANCES_A_B_ENDPOINT_AWARE": "false"}) == [
            "KAA_EXTENSION_INSTANCES_A_B_ENDPOINT_AWARE: names more than one key: "
            "kaa.extension-instances.a-b.endpoint-aware, kaa.extension-instances.a_b.endpoint-aware"
        ]


class TestPath:
    def test_default_and_variable(self) -> None:
        assert config_path({}) == DEFAULT_PATH == Path("/srv/kpc/service-config.yml")
        assert config_path({"APP_CONFIG_PATH": "/etc/kpc.yml"}) == Path("/etc/kpc.yml")

    def test_missing_file_that_the_variable_names(self, tmp_path: Path) -> None:
        path = tmp_path / "none.yml"
        assert problems(path, {"APP_CONFIG_PATH": str(path)}) == [
            "none.yml: no such file; APP_CONFIG_PATH names it"
        ]

    def test_missing_default_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kaa_gateway.config.loading.DEFAULT_PATH", tmp_path / "none.yml")
        assert problems(config_path({})) == [
            "none.yml: no such file; set APP_CONFIG_PATH to the path of your service-config.yml"
        ]

    def test_missing_file_of_a_command_line(self, tmp_path: Path) -> None:
        assert problems(tmp_path / "none.yml") == ["none.yml: no such file"]

    def test_directory(self, tmp_path: Path) -> None:
        (line,) = problems(tmp_path)
        assert line.endswith(": cannot be read: Is a directory")

    def test_not_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "service-config.yml"
        path.write_bytes(b"service: \xff\xfe")
        assert problems(path) == ["service-config.yml: cannot be read: not UTF-8 text"]


class TestAgreement:
    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            (
                "kaa.kpc.transports.mqtt.tls.enabled",
                "true",
                "needs kaa.kpc.transports.mqtt.tls.cert-file, which is not set",
            ),
            (
                "kaa.kpc.transports.coap.dtls.enabled",
                "true",
                "needs kaa.kpc.transports.coap.dtls.cert-file or kaa.kpc.transports.coap.dtls.psk-file, "
                "which is not set",
            ),
            (
                "kaa.kpc.identity.clients.provider",
                "static",
                "static needs kaa.kpc.identity.static.file, which is not set",
            ),
            (
                "kaa.kpc.identity.clients.provider",
                "cap",
                "cap needs a tenant: kaa.applications.<application>.tenant or "
                "kaa.kpc.identity.clients.default-tenant",
            ),
            (
                "kaa.kpc.transports.mqtt.client-authentication",
                "required",
                "required needs kaa.kpc.identity.clients.provider, which is none",
            ),
            (
                "kaa.kpc.transports.http.client-authentication",
                "optional",
                "optional needs kaa.kpc.identity.clients.provider, which is none",
            ),
            (
                "kaa.kpc.identity.provider",
                "static",
                "static needs kaa.kpc.identity.static.file, which is not set",
            ),
            ("kaa.kpc.nats.tls.cert-file", "/c", "needs kaa.kpc.nats.tls.key-file, which is not set"),
            ("kaa.kpc.nats.tls.key-file", "/c", "needs kaa.kpc.nats.tls.cert-file, which is not set"),
            ("server.port", "8080", "port 8080 is that of kaa.kpc.transports.http.port too"),
            ("kaa.kpc.transports.http.port", "1883", f"port 1883 is that of {MQTT_PORT} too"),
            (MQTT_PORT, "8008", "port 8008 is that of server.port too"),
        ],
    )
    def test_disagreement(self, write: Write, key: str, value: str, message: str) -> None:
        assert problems(write(f"\n{key}: {value}")) == [f"service-config.yml:2: {key}: {message}"]
        variable = key.replace(".", "_").replace("-", "_").upper()
        assert problems(None, {variable: value}) == [f"{variable}: {message}"]

    def test_version_of_two_applications(self, write: Write) -> None:
        (line,) = problems(write("kaa.applications:\n  a: {versions: {v: }}\n  b:\n    versions.v:\n"))
        assert line.startswith("service-config.yml:4: kaa.applications.b.versions.v: ")
        assert line.endswith('the application "a" has a version of this name too')

    def test_tls_listener(self, write: Write) -> None:
        text = """\
kaa.kpc.transports.http.tls:
  enabled: true
  cert-file: /c
  client-certificate: required
kaa.kpc.transports.mqtt.tls: {enabled: true, cert-file: /c, key-file: /k, crl-file: /r}
"""
        tls = "kaa.kpc.transports.http.tls"
        assert sorted(problems(write(text))) == [
            f"service-config.yml:3: {tls}.cert-file: needs {tls}.key-file, which is not set",
            f"service-config.yml:4: {tls}.client-certificate: required needs {tls}.ca-file, which is not set",
            "service-config.yml:5: kaa.kpc.transports.mqtt.tls.crl-file: means nothing while "
            "kaa.kpc.transports.mqtt.tls.client-certificate is off",
        ]

    def test_tenants_of_a_tls_listener(self, write: Write) -> None:
        text = """\
kaa.applications.app.tenant: acme
kaa.kpc.transports.http.tls:
  enabled: true
  cert-file: /c
  key-file: /k
  client-certificate: required
  tenants:
    acme: {ca-file: /a, cert-file: /c, server-names: [a.example]}
    umbrella: {crl-file: /r, server-names: [A.example, "*.b.example"]}
    third: {ca-file: /t, crl-file: /r, cert-file: /c, key-file: /k}
kaa.kpc.transports.mqtt.tls: {enabled: true, cert-file: /c, key-file: /k, tenants: {acme: {ca-file: /a}}}
"""
        tls = "kaa.kpc.transports.http.tls"
        assert sorted(problems(write(text))) == [
            "kaa.kpc.transports.mqtt.tls.tenants: means nothing while "
            "kaa.kpc.transports.mqtt.tls.client-certificate is off",
            f"service-config.yml:10: {tls}.tenants.third.cert-file: needs server-names, which are not set",
            f"service-config.yml:10: {tls}.tenants.third: no application has this tenant",
            f"service-config.yml:8: {tls}.tenants.acme.ca-file: needs a crl-file, because other authorities of "
            "the listener have one",
            f"service-config.yml:8: {tls}.tenants.acme.cert-file: needs {tls}.tenants.acme.key-file, "
            "which is not set",
            f"service-config.yml:9: {tls}.tenants.umbrella.server-names: a.example is a server name of the "
            "tenant acme too",
            f"service-config.yml:9: {tls}.tenants.umbrella: needs a ca-file",
            f"service-config.yml:9: {tls}.tenants.umbrella: no application has this tenant",
        ]

    @pytest.mark.parametrize("name", ["", "a b", "*.*.a", "a.*", "-" * 64, "a..b", "a" + ".a" * 16])
    def test_server_name_that_is_none(self, write: Write, name: str) -> None:
        text = f"kaa.kpc.transports.http.tls.tenants.acme: {{ca-file: /a, server-names: ['{name}']}}"
        (problem,) = problems(write(text))
        assert "host name" in problem

    def test_port_of_a_listener_that_is_off_is_free(self, write: Write) -> None:
        text = "kaa.kpc.transports: {mqtt.tls.port: 1883, http: {enabled: false, port: 1883}}"
        assert problems(write(text)) == []

    def test_static_with_file(self, write: Write) -> None:
        config = load(write("kaa.kpc.identity: {provider: static, static.file: /etc/tokens.yml}"), {})
        assert config.identity.static.file == Path("/etc/tokens.yml")


class TestSecrets:
    @pytest.mark.parametrize(
        "text",
        [
            "nats://user:geheim@h:x",
            "nats://user:ge,heim@h",
            "geheim@",
            "http://geheim@h",
            "nats://geheim@h/?a b",
        ],
    )
    def test_wrong_nats_url_is_not_shown(self, write: Write, text: str) -> None:
        for lines in (problems(None, {"NATS_URLS": text}), problems(write(f"kaa.kpc.nats.urls: '{text}'"))):
            assert lines
            assert "geheim" not in "".join(lines)
            assert "heim@" not in "".join(lines)
            assert "got a value that is not shown" in lines[0]

    def test_url_in_place_of_its_section_is_not_shown(self, write: Write) -> None:
        assert "geheim" not in "".join(problems(write("kaa.kpc.nats: nats://user:geheim@h:4222")))

    def test_configuration_may_be_logged(self) -> None:
        assert "geheim" not in repr(load(None, {"NATS_URLS": "nats://user:geheim@h:4222"}))

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("nats://h:4222", "nats://h:4222"),
            ("nats://user:p@ss/w@h:4222", "nats://***@h:4222"),
            ("tls://token@h", "tls://***@h"),
            ("user:pass@h", "***@h"),
        ],
    )
    def test_masked(self, url: str, shown: str) -> None:
        assert masked(url) == shown
