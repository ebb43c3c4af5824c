"""The Helm chart, rendered by Helm's own engine (helm-python-sdk) and held against the schemas of Kubernetes."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from kaa_gateway import __version__
from kaa_gateway.config import load

CHART = Path(__file__).resolve().parents[1] / "helm"
KUBERNETES = ["1.26", "1.34"]
"""The oldest that Chart.yaml allows, and a recent one."""
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
CUSTOM = {
    "ServiceMonitor": {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": "ServiceMonitor"},
            "metadata": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "labels": LABELS},
            },
            "spec": {
                "type": "object",
                "additionalProperties": False,
                "required": ["endpoints", "selector"],
                "properties": {
                    "selector": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["matchLabels"],
                        "properties": {"matchLabels": LABELS},
                    },
                    "endpoints": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "port": {"type": "string"},
                                "path": {"type": "string"},
                                "interval": {
                                    "type": "string",
                                    "pattern": r"^(0|(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)$",
                                },
                            },
                        },
                    },
                },
            },
        },
    }
}
"""Kinds that are not Kubernetes's own, and as much of the schemas of their definitions as we use, restated."""
Values = dict[str, Any]
Manifest = dict[str, Any]

EVERYTHING: Values = {
    "imagePullSecrets": [{"name": "registry"}],
    "nats": {"existingSecret": "nats"},
    "tls": {"existingSecret": "certificate"},
    "config": {
        "kaa": {
            "kpc": {
                "transports": {
                    "mqtt": {"tls": {"enabled": True}, "websocket": {"enabled": True, "port": 8083}},
                    "http": {"tls": {"enabled": True}},
                    "coap": {"dtls": {"enabled": True, "port": 5684}},
                }
            }
        }
    },
    "management": {"existingSecret": "token"},
    "extraEnv": [{"name": "KAA_KPC_LOG_LEVEL", "value": "debug"}],
    "extraVolumes": [{"name": "endpoints", "secret": {"secretName": "endpoints"}}],
    "extraVolumeMounts": [{"name": "endpoints", "mountPath": "/srv/kpc/endpoints"}],
    "services": {
        "tcp": {"annotations": {"a": "b"}, "loadBalancerSourceRanges": ["192.0.2.0/24"]},
        "udp": {"type": "NodePort"},
    },
    "autoscaling": {"enabled": True},
    "networkPolicy": {"collectorTo": [{"podSelector": {"matchLabels": {"a": "collector"}}}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "devices", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}
NOTHING: Values = {
    "nats": {"credentials": "-----BEGIN NATS USER JWT-----"},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "reloader": {"enabled": False},
    "topologySpread": None,
    "services": {"tcp": {"type": "ClusterIP"}},
}


@pytest.fixture(scope="module")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(str(CHART)) as chart:
        yield chart


def render(chart: helm_python.Chart, values: Values) -> dict[tuple[str, str], Manifest]:
    """The manifests by kind and name, of a release `gw` in the namespace `iot`."""
    texts = chart.render(deepcopy(values), name="gw", namespace="iot")
    documents = (
        document
        for path, text in texts.items()
        if not path.endswith("NOTES.txt")
        for document in yaml.safe_load_all(text)
        if document is not None
    )
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


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
        ("NetworkPolicy", "gw-kaa-gateway"),
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
    assert {"HorizontalPodAutoscaler", "ServiceMonitor"} <= kinds
    assert "Secret" not in kinds
    assert "replicas" not in manifests["Deployment", "gw-kaa-gateway"]["spec"]
    metric = manifests["HorizontalPodAutoscaler", "gw-kaa-gateway"]["spec"]["metrics"][0]["pods"]["metric"]
    assert metric == {"name": "kaa_gateway_connections"}


@pytest.mark.parametrize(("values", "ports"), [({}, [4222]), (EVERYTHING, [4222, 4318])])
def test_the_gateway_may_reach_nats_and_a_collector(
    chart: helm_python.Chart, values: Values, ports: list[int]
) -> None:
    *others, names = render(chart, values)["NetworkPolicy", "gw-kaa-gateway"]["spec"]["egress"]
    assert [rule["ports"][0]["port"] for rule in others] == ports
    assert all(rule["to"] for rule in others)
    assert {port["port"] for port in names["ports"]} == {53}


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
    ],
    ids=str,
)
def test_wrong_values_are_refused(chart: helm_python.Chart, values: Values) -> None:
    with pytest.raises(helm_python.HelmError):
        chart.render(values, name="gw", namespace="iot")
