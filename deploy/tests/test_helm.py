"""The Helm chart, rendered by Helm's own engine (helm-python-sdk) and held against the schemas of Kubernetes."""

import json
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from kaa_gateway import __version__
from kaa_gateway.config import load

from deploy.tests.custom_resources import CUSTOM
from deploy.tests.helm_chart import CHART, EVERYTHING, Manifest, Values, chart, render

__all__ = ["chart"]

KUBERNETES = ["1.26", "1.34"]
"""The oldest that Chart.yaml allows, and a recent one."""
NOTHING: Values = {
    "nats": {"credentials": "-----BEGIN NATS USER JWT-----"},
    "podDisruptionBudget": {"enabled": False},
    "podSecurityContext": None,
    "securityContext": None,
    "serviceAccount": {"create": False},
    "restartOnConfigChange": False,
    "reloader": {"enabled": False},
    "topologySpread": None,
    "services": {"tcp": {"type": "ClusterIP"}},
}


def container(manifests: dict[tuple[str, str], Manifest]) -> Manifest:
    pod = manifests["Deployment", "gw-kaa-gateway"]["spec"]["template"]["spec"]
    found: Manifest = pod["containers"][0]
    return found


@pytest.mark.parametrize("values", [{}, EVERYTHING, NOTHING], ids=["default", "everything", "nothing"])
@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_are_valid(chart: helm_python.Chart, values: Values, version: str) -> None:
    manifests = render(chart, values)
    assert manifests
    for manifest in manifests.values():
        if manifest["kind"] in CUSTOM:
            jsonschema.validate(manifest, CUSTOM[manifest["kind"]])
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_what_is_there_by_default(chart: helm_python.Chart) -> None:
    assert sorted(render(chart, {})) == [
        ("ConfigMap", "gw-kaa-gateway"),
        ("Deployment", "gw-kaa-gateway"),
        ("Pod", "gw-kaa-gateway-test"),
        ("PodDisruptionBudget", "gw-kaa-gateway"),
        ("Secret", "gw-kaa-gateway-nats"),
        ("Service", "gw-kaa-gateway-management"),
        ("Service", "gw-kaa-gateway-tcp"),
        ("Service", "gw-kaa-gateway-udp"),
        ("ServiceAccount", "gw-kaa-gateway"),
    ]


def test_what_is_there_with_everything(chart: helm_python.Chart) -> None:
    manifests = render(chart, EVERYTHING)
    kinds = {kind for kind, _ in manifests}
    assert {"HorizontalPodAutoscaler", "NetworkPolicy", "Ingress", *CUSTOM} <= kinds
    assert "Secret" not in kinds
    assert "replicas" not in manifests["Deployment", "gw-kaa-gateway"]["spec"]
    metric = manifests["HorizontalPodAutoscaler", "gw-kaa-gateway"]["spec"]["metrics"][0]["pods"]["metric"]
    assert metric == {"name": "kaa_gateway_connections"}


def test_the_network_policy_lets_the_gateway_reach_nats_and_a_collector(chart: helm_python.Chart) -> None:
    nats, names = render(chart, {"networkPolicy": {"enabled": True}})["NetworkPolicy", "gw-kaa-gateway"][
        "spec"
    ]["egress"]
    assert nats == {"ports": [{"port": 4222, "protocol": "TCP"}]}  # no `to`: in any namespace
    assert {port["port"] for port in names["ports"]} == {53}
    nats, collector, _ = render(chart, EVERYTHING)["NetworkPolicy", "gw-kaa-gateway"]["spec"]["egress"]
    assert nats["to"] == [{"podSelector": {}}]
    assert collector == {
        "to": [{"podSelector": {"matchLabels": {"a": "collector"}}}],
        "ports": [{"port": 4318, "protocol": "TCP"}],
    }
    rule = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    manifests = render(chart, {"networkPolicy": {"enabled": True, "extraEgress": [rule]}})
    assert rule in manifests["NetworkPolicy", "gw-kaa-gateway"]["spec"]["egress"]


def test_the_config_map_is_a_configuration_that_the_gateway_takes(
    chart: helm_python.Chart, tmp_path: Path
) -> None:
    file = tmp_path / "service-config.yml"
    file.write_text(render(chart, {})["ConfigMap", "gw-kaa-gateway"]["data"]["service-config.yml"])
    config = load(file, {"NATS_URLS": "nats://nats:4222"})
    assert config.service.instance.name == "kpc"
    assert "demo_application_v1" in config.app_versions
    assert not config.warnings


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_each_open_port_is_reached(chart: helm_python.Chart, values: Values) -> None:
    manifests = render(chart, values)
    opened = {
        port["name"]: (port["containerPort"], port["protocol"]) for port in container(manifests)["ports"]
    }
    served = {
        port["targetPort"]: (port["port"], port["protocol"])
        for (kind, _), manifest in manifests.items()
        if kind == "Service"
        for port in manifest["spec"]["ports"]
    }
    assert served == opened
    assert opened.pop("management") == (8008, "TCP")
    if values:
        policy = manifests["NetworkPolicy", "gw-kaa-gateway"]["spec"]["ingress"]
        assert [(port["port"], port["protocol"]) for port in policy[0]["ports"]] == list(opened.values())
        assert [port["port"] for port in policy[1]["ports"]] == [8008]
    for (kind, name), manifest in manifests.items():
        if kind == "Service" and name.endswith(("-tcp", "-udp")):
            assert {port["protocol"].lower() for port in manifest["spec"]["ports"]} == {
                name.rpartition("-")[2]
            }


def test_ports_follow_the_configuration(chart: helm_python.Chart) -> None:
    transports = {"coap": {"enabled": False}, "udp": {"enabled": False}, "http": {"port": 80}}
    manifests = render(chart, {"config": {"kaa": {"kpc": {"transports": transports}}}})
    assert ("Service", "gw-kaa-gateway-udp") not in manifests
    assert [port["port"] for port in manifests["Service", "gw-kaa-gateway-tcp"]["spec"]["ports"]] == [
        1883,
        80,
    ]


def test_protocols_of_plugins_have_ports(chart: helm_python.Chart) -> None:
    protocols = {
        "gt06_tracker": {"port": 5023, "tls": {"enabled": True, "port": 5024}},
        "meter": {"transport": "udp", "enabled": False, "dtls": {"enabled": True, "port": 5684}},
    }
    transports = {"coap": {"enabled": False}, "udp": {"enabled": False}, "protocols": protocols}
    manifests = render(chart, {"config": {"kaa": {"kpc": {"transports": transports}}}})
    ports = {
        (port["name"], port["containerPort"], port["protocol"]) for port in container(manifests)["ports"]
    }
    assert {
        ("gt06-tracke", 5023, "TCP"), ("gt06-tracke-tls", 5024, "TCP"), ("meter-tls", 5684, "UDP"),
    } <= ports  # fmt: skip
    (datagrams,) = manifests["Service", "gw-kaa-gateway-udp"]["spec"]["ports"]
    assert datagrams["port"] == 5684


def test_mqtt_sn_has_ports(chart: helm_python.Chart) -> None:
    mqtt_sn = {"enabled": True, "port": 1884, "dtls": {"enabled": True, "port": 8884}}
    transports = {"coap": {"enabled": False}, "udp": {"enabled": False}, "mqtt-sn": mqtt_sn}
    manifests = render(chart, {"config": {"kaa": {"kpc": {"transports": transports}}}})
    ports = manifests["Service", "gw-kaa-gateway-udp"]["spec"]["ports"]
    assert [(each["name"], each["port"]) for each in ports] == [("mqtt-sn", 1884), ("mqtt-sns", 8884)]


def test_the_pod_can_do_little_and_is_given_time_to_drain(chart: helm_python.Chart) -> None:
    manifests = render(chart, {"config": {"service": {"graceful-shutdown": 60}}, "preStopSeconds": 20})
    gateway = container(manifests)
    assert gateway["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    deployment = manifests["Deployment", "gw-kaa-gateway"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] >= 60 + 20
    assert gateway["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "20"]
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert deployment["metadata"]["annotations"] == {"reloader.stakater.com/auto": "true"}
    assert gateway["image"] == f"kaa-gateway:{__version__}"


def test_a_change_of_the_configuration_changes_the_pods(chart: helm_python.Chart) -> None:
    def checksum(values: Values) -> str:
        template = render(chart, values)["Deployment", "gw-kaa-gateway"]["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum({}) == checksum({"replicaCount": 5})
    assert checksum({}) != checksum({"config": {"kaa": {"kpc": {"workers": 2}}}})


def test_no_secret_stands_in_the_pod_or_the_config_map(chart: helm_python.Chart) -> None:
    manifests = render(chart, {"nats": {"urls": "nats://user:pa55word@nats:4222", "credentials": "S33D"}})
    assert manifests["Secret", "gw-kaa-gateway-nats"]["stringData"] == {
        "urls": "nats://user:pa55word@nats:4222",
        "user.creds": "S33D",
    }
    for (kind, _), manifest in manifests.items():
        if kind != "Secret":
            assert "pa55word" not in str(manifest)
            assert "S33D" not in str(manifest)


@pytest.mark.parametrize(
    "values",
    [
        {"replicaCount": "2"},
        {"image": {"repositry": "x"}},
        {"config": {"server": {"port": 0}}},
        {"config": {"service": {"instance": {"replica": {"id": "one-for-all"}}}}},
        {"nats": {"urls": "http://nats"}},
        {"services": {"tcp": {"type": "Loadbalancer"}}},
        {"nonsense": 1},
        {"image": {"digest": "sha256:1"}},
        {"ingress": {"paths": [{"path": "/", "port": "mqtt"}]}},
        {"ingress": {"enabled": True, "paths": [{"path": "/", "port": "ws"}]}},  # not open
        {"httpRoute": {"enabled": True}},  # of which Gateway?
    ],
    ids=str,
)
def test_wrong_values_are_refused(chart: helm_python.Chart, values: Values) -> None:
    with pytest.raises(helm_python.HelmError):
        chart.render(values, name="gw", namespace="iot")


@pytest.mark.parametrize(
    ("nats", "file"),
    [
        ({}, None),
        ({"credentials": "S33D"}, "user.creds"),
        ({"existingSecret": "mine"}, None),
        ({"existingSecret": "mine", "existingSecretCredentialsKey": "gateway.creds"}, "gateway.creds"),
    ],
    ids=["none", "value", "secret-without", "secret-with"],
)
def test_the_gateway_reads_the_credentials_that_are_mounted(
    chart: helm_python.Chart, nats: Values, file: str | None
) -> None:
    manifests = render(chart, {"nats": nats})
    variables = {each["name"]: each for each in container(manifests)["env"]}
    mounts = {each["name"]: each["mountPath"] for each in container(manifests)["volumeMounts"]}
    secret = nats.get("existingSecret") or "gw-kaa-gateway-nats"
    assert variables["NATS_URLS"]["valueFrom"]["secretKeyRef"] == {"name": secret, "key": "urls"}
    if file is None:
        assert "KAA_KPC_NATS_CREDENTIALS_FILE" not in variables
        assert "nats" not in mounts
    else:
        assert variables["KAA_KPC_NATS_CREDENTIALS_FILE"]["value"] == f"{mounts['nats']}/{file}"
        volumes = manifests["Deployment", "gw-kaa-gateway"]["spec"]["template"]["spec"]["volumes"]
        (volume,) = (each for each in volumes if each["name"] == "nats")
        assert volume["secret"]["secretName"] == secret
        assert volume["secret"]["items"] == [{"key": file, "path": file}]


@pytest.mark.parametrize("certificate", [False, True])
def test_tls_towards_nats(chart: helm_python.Chart, certificate: bool) -> None:
    tls = {"existingSecret": "nats-tls-files", "clientCertificate": certificate, "handshakeFirst": True}
    manifests = render(chart, {"nats": {"tls": tls}})
    variables = {each["name"]: each.get("value") for each in container(manifests)["env"]}
    mounts = {each["name"]: each["mountPath"] for each in container(manifests)["volumeMounts"]}
    files = {"CA_FILE": "ca.crt"} | ({"CERT_FILE": "tls.crt", "KEY_FILE": "tls.key"} if certificate else {})
    assert {
        name.removeprefix("KAA_KPC_NATS_TLS_"): value
        for name, value in variables.items()
        if name.startswith("KAA_KPC_NATS_TLS_")
    } == {**{name: f"{mounts['nats-tls']}/{file}" for name, file in files.items()}, "HANDSHAKE_FIRST": "true"}
    volumes = manifests["Deployment", "gw-kaa-gateway"]["spec"]["template"]["spec"]["volumes"]
    (volume,) = (each for each in volumes if each["name"] == "nats-tls")
    assert volume["secret"]["secretName"] == "nats-tls-files"


def test_there_is_no_tls_towards_nats_by_default(chart: helm_python.Chart) -> None:
    names = [each["name"] for each in container(render(chart, {}))["env"]]
    assert not [name for name in names if name.startswith("KAA_KPC_NATS_TLS_")]


def test_pods_stay_when_the_configuration_changes_and_it_says_so(chart: helm_python.Chart) -> None:
    deployment = render(chart, {"restartOnConfigChange": False})["Deployment", "gw-kaa-gateway"]
    assert "annotations" not in deployment["metadata"]
    assert "annotations" not in deployment["spec"]["template"]["metadata"]


def test_names_can_be_chosen(chart: helm_python.Chart) -> None:
    names = {name for _, name in render(chart, {"fullnameOverride": "kpc"})}
    assert names == {"kpc", "kpc-nats", "kpc-tcp", "kpc-udp", "kpc-management", "kpc-test"}
    assert ("Deployment", "gw-doors") in render(chart, {"nameOverride": "doors"})


def test_an_image_can_be_named_by_its_digest(chart: helm_python.Chart) -> None:
    digest = "sha256:" + "0" * 64
    gateway = container(render(chart, {"image": {"digest": digest, "tag": "1"}}))
    assert gateway["image"] == f"kaa-gateway@{digest}"


def test_a_service_account_of_ones_own_is_used(chart: helm_python.Chart) -> None:
    for values, name in [
        ({}, "gw-kaa-gateway"),
        ({"name": "mine", "create": False}, "mine"),
        ({"create": False}, "default"),
    ]:
        manifests = render(chart, {"serviceAccount": values})
        pod = manifests["Deployment", "gw-kaa-gateway"]["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == name
        assert (("ServiceAccount", name) in manifests) == (not values)


def test_openshift_may_choose_the_user(chart: helm_python.Chart) -> None:
    values = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    pod = render(chart, values)["Deployment", "gw-kaa-gateway"]["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_what_a_user_adds_stands_in_the_pod(chart: helm_python.Chart) -> None:
    manifests = render(chart, EVERYTHING)
    pod = manifests["Deployment", "gw-kaa-gateway"]["spec"]["template"]["spec"]
    assert pod["initContainers"] == EVERYTHING["initContainers"]
    assert pod["containers"][1:] == EVERYTHING["sidecars"]
    assert container(manifests)["envFrom"] == EVERYTHING["extraEnvFrom"]
    assert ("ConfigMap", "gw-more") in manifests  # a template in an object is rendered


def test_services_follow_their_values(chart: helm_python.Chart) -> None:
    manifests = render(chart, EVERYTHING)
    assert manifests["Service", "gw-kaa-gateway-tcp"]["spec"]["loadBalancerClass"] == "example.com/lb"
    ports = {port["name"]: port for port in manifests["Service", "gw-kaa-gateway-udp"]["spec"]["ports"]}
    assert ports["coap"]["nodePort"] == 31683


def test_kp_udp_has_ports_where_it_is_switched_on(chart: helm_python.Chart) -> None:
    def ports(udp: dict[str, Any]) -> dict[str, int]:
        manifests = render(chart, {"config": {"kaa": {"kpc": {"transports": {"udp": udp}}}}})
        found = manifests["Service", "gw-kaa-gateway-udp"]["spec"]["ports"]
        return {port["name"]: port["port"] for port in found}

    assert ports({}) == {"coap": 5683}
    assert ports({"enabled": True}) == {"coap": 5683, "kpudp": 5686}
    assert ports({"secure": {"enabled": True}}) == {"coap": 5683, "kpudp-secure": 5687}


def test_http_and_websocket_are_reached_through_ingress_and_gateway(chart: helm_python.Chart) -> None:
    manifests = render(chart, EVERYTHING)
    (rule,) = manifests["Ingress", "gw-kaa-gateway"]["spec"]["rules"]
    assert rule["host"] == "devices.example"
    backends = {each["path"]: each["backend"]["service"] for each in rule["http"]["paths"]}
    assert backends == {
        "/": {"name": "gw-kaa-gateway-tcp", "port": {"name": "http"}},
        "/mqtt": {"name": "gw-kaa-gateway-tcp", "port": {"name": "ws"}},
    }
    (route,) = manifests["HTTPRoute", "gw-kaa-gateway"]["spec"]["rules"]
    assert route["backendRefs"] == [{"name": "gw-kaa-gateway-tcp", "port": 8083}]


def test_alerts_and_dashboard_are_those_of_the_project(chart: helm_python.Chart) -> None:
    manifests = render(chart, EVERYTHING)
    alerts = yaml.safe_load((CHART.parent / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    assert manifests["PrometheusRule", "gw-kaa-gateway"]["spec"] == alerts
    dashboard = manifests["ConfigMap", "gw-kaa-gateway-dashboard"]["data"]["kaa-gateway.json"]
    assert json.loads(dashboard) == json.loads((CHART.parent / "grafana/dashboard.json").read_text("utf-8"))


def test_each_value_is_explained() -> None:
    """Each value stands below a comment of helm-docs, or its parent or children do."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    stack: list[tuple[int, str, bool]] = []
    unexplained = []
    explained = False
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            explained = text.startswith("# -- ") or (explained and bool(text))
            continue
        indent = len(line) - len(line.lstrip())
        stack = [each for each in stack if each[0] < indent]
        key, _, value = text.partition(":")
        known = explained or any(each[2] for each in stack)
        if value and not known and not text.startswith("-"):
            unexplained.append(".".join([*(each[1] for each in stack), key]))
        stack.append((indent, key, known))
        explained = False
    assert unexplained == []
