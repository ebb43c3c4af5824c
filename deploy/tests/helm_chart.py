"""The Helm chart as tests render it, and values that switch everything on."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

CHART = Path(__file__).resolve().parents[1] / "helm"
Values = dict[str, Any]
Manifest = dict[str, Any]

EVERYTHING: Values = {
    "imagePullSecrets": [{"name": "registry"}],
    "nats": {"existingSecret": "nats", "existingSecretCredentialsKey": "user.creds"},
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
    "extraEnvFrom": [{"secretRef": {"name": "more"}}],
    "initContainers": [{"name": "wait", "image": "busybox"}],
    "sidecars": [{"name": "proxy", "image": "envoy"}],
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}},
    ],
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"a": "b"},
        "hosts": ["devices.example"],
        "paths": [{"path": "/", "port": "http"}, {"path": "/mqtt", "port": "ws"}],
        "tls": [{"secretName": "devices", "hosts": ["devices.example"]}],
    },
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "public"}],
        "hostnames": ["devices.example"],
        "paths": [{"path": "/mqtt", "port": "ws"}],
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
    "extensions": {"enabled": True, "settings": {"dcx": {"a": 1}}},
    "rest": {
        "enabled": True,
        "existingSecret": "rest-token",
        "tls": {"existingSecret": "rest-tls"},
        "accessLog": True,
    },
    "extraVolumes": [{"name": "endpoints", "secret": {"secretName": "endpoints"}}],
    "extraVolumeMounts": [{"name": "endpoints", "mountPath": "/srv/kpc/endpoints"}],
    "services": {
        "tcp": {
            "annotations": {"a": "b"},
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "loadBalancerClass": "example.com/lb",
        },
        "udp": {"type": "NodePort", "nodePorts": {"coap": 31683}},
    },
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "natsTo": [{"podSelector": {}}],
        "collectorTo": [{"podSelector": {"matchLabels": {"a": "collector"}}}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "devices", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
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
