"""`check-config --kpc`: configurations of KPC, as a file and as manifests of Kubernetes."""

import re
from pathlib import Path

import pytest
from kaa_gateway.config import dry_run
from kaa_gateway.config.manifests import read_manifest
from kaa_gateway.errors import ConfigError

KPC = """\
service:
  instance:
    name: kpc
  graceful-shutdown: 30
server:
  port: 8008
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
        tcp: {enabled: true, port: 1883}
        tls: {enabled: false, port: 8883, cert-file: /srv/tls.crt, key-file: /srv/tls.key}
        websocket: {enabled: true, port: 8083}
"""
OPENED = [
    "port 8080 (tcp) is opened",
    "port 5683 (udp) is opened",
    "kaa.kpc.identity.provider is not set",
]


def manifests(config: str = KPC, *more: str, kind: str = "ConfigMap") -> str:
    indented = "".join(f"    {line}\n" for line in config.splitlines())
    return (
        f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: kpc}}\ndata:\n  service-config.yml: |\n{indented}"
        + "".join(f"---\n{each}" for each in more)
    )


WORKLOAD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: kpc}
spec:
  template:
    spec:
      containers:
      - name: kpc
        env:
        - {name: KAA_KPC_TRANSPORTS_HTTP_ENABLED, value: "false"}
        - {name: KAA_KPC_TRANSPORTS_COAP_ENABLED, value: "false"}
        - {name: KAA_KPC_TRANSPORTS_UDP_ENABLED, value: "false"}
        - {name: KAA_KPC_IDENTITY_PROVIDER, value: ecap}
        - {name: NATS_URLS, valueFrom: {secretKeyRef: {name: nats, key: urls}}}
        - {name: JAVA_OPTS, value: -Xmx1g}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kpc.yml"


def test_the_documented_settings_are_kept(file: Path) -> None:
    file.write_text(KPC)
    found = dry_run(file)
    assert found.errors == []
    assert [change.split(",")[0] for change in found.changes] == OPENED
    assert found.kept == 13
    assert list(found.lines())[-1] == "the gateway starts with this"


def test_a_config_map_and_a_deployment(file: Path) -> None:
    file.write_text(manifests(KPC, WORKLOAD))
    found = dry_run(file)
    assert found.errors == []
    assert found.changes == ["the value of NATS_URLS stands elsewhere and was not looked at"]
    assert found.kept == 17


def test_a_list_as_kubectl_prints_it(file: Path) -> None:
    items = "".join(
        f"- {each.replace(chr(10), chr(10) + '  ').rstrip()}\n" for each in (manifests(), WORKLOAD)
    )
    file.write_text(f"apiVersion: v1\nkind: List\nitems:\n{items}")
    assert dry_run(file).kept == 17


def test_keys_without_effect_and_wrong_values_are_named_with_their_lines(file: Path) -> None:
    config = KPC.replace("  kpc:\n", "  kpc:\n    retain: true\n").replace("port: 8008", "port: http")
    file.write_text(manifests(config))
    found = dry_run(file)
    name = f"{file} (service-config.yml)"
    assert found.changes[0].startswith(f"has no effect: {name}:18: kaa.kpc.retain: unknown key")
    assert found.errors[0].startswith(f"{name}:6: server.port: expected an integer")
    assert "KAA_KPC_UNKNOWN_KEYS=warn" in found.errors[1]
    assert found.kept == 12
    assert list(found.lines())[-1] == "the gateway does not start with this"


def test_unknown_keys_that_are_allowed_do_not_stop_it(file: Path) -> None:
    allowing = WORKLOAD.replace("JAVA_OPTS, value: -Xmx1g", "KAA_KPC_UNKNOWN_KEYS, value: warn")
    file.write_text(manifests(KPC.replace("  kpc:\n", "  kpc:\n    retain: true\n"), allowing))
    found = dry_run(file)
    assert found.errors == []
    assert any("kaa.kpc.retain" in change for change in found.changes)


def test_a_replica_id_and_no_application_are_said(file: Path) -> None:
    file.write_text("service.instance.replica.id: one\n")
    changes = " ".join(dry_run(file).changes)
    assert "two replicas with one ID" in changes
    assert "no application is configured" in changes


def test_this_machine_is_not_looked_at(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_PORT", "http")
    file.write_text(KPC)
    assert dry_run(file).errors == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file"),
        ("a: [", "not YAML"),
        (manifests(kind="Secret"), "expected one service-config.yml in its ConfigMaps, found none"),
        (manifests() + "---\n" + manifests(), "found .*service-config.yml.*, .*service-config.yml"),
        (WORKLOAD, "found none"),
    ],
)
def test_a_file_without_one_configuration(file: Path, text: str | None, said: str) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as failure:
        dry_run(file)
    assert re.search(said, failure.value.detail)


@pytest.mark.parametrize(
    "text",
    [
        "kind: ConfigMap\ndata: 5",
        "kind: ConfigMap\ndata: {service-config.yml: 7}",
        "kind: List\nitems: [1, null, {kind: Deployment, spec: {template: {spec: {containers: 3}}}}]",
        "kind: Deployment\nspec: {template: {spec: {containers: [4, {env: 5}, {env: [6, {value: x}]}]}}}",
    ],
)
def test_manifests_of_any_shape_are_refused_and_not_stumbled_over(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_manifest(file)
