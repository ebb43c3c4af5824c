"""The extension services and their REST API in the Helm chart."""

import helm_python
import pytest

from deploy.tests.helm_chart import EVERYTHING, chart, render

__all__ = ["chart"]


def test_no_service_sends_devices_to_the_extensions(chart: helm_python.Chart) -> None:
    manifests = render(chart, EVERYTHING)
    extensions = manifests["Deployment", "gw-kaa-gateway-extensions"]["spec"]["template"]
    assert extensions["spec"]["containers"][0]["args"][:3] == ["dcx", "epts", "tsx"]
    rest = manifests["Deployment", "gw-kaa-gateway-rest"]["spec"]["template"]["metadata"]
    for pod in (extensions["metadata"], rest, manifests["Pod", "gw-kaa-gateway-test"]["metadata"]):
        for (kind, name), manifest in manifests.items():
            if kind == "Service" and name != "gw-kaa-gateway-rest":
                assert not manifest["spec"]["selector"].items() <= pod["labels"].items()


def test_extensions_have_probes_and_metrics(chart: helm_python.Chart) -> None:
    manifests = render(chart, {**EVERYTHING, "extensions": {"enabled": True, "workers": 3}})
    pod = manifests["Deployment", "gw-kaa-gateway-extensions"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("--workers") + 1] == "3"
    (port,) = container["ports"]
    assert str(port["containerPort"]) == arguments[arguments.index("--management") + 1]
    for probe, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": f"/health/{path}", "port": port["name"]}
    monitor = manifests["PodMonitor", "gw-kaa-gateway-extensions"]["spec"]
    assert monitor["podMetricsEndpoints"][0]["port"] == port["name"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_the_rest_api_has_a_token_probes_and_metrics(chart: helm_python.Chart) -> None:
    manifests = render(chart, EVERYTHING)
    pod = manifests["Deployment", "gw-kaa-gateway-rest"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("--token-file") + 1] == "/srv/rest/token"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["spec"]["volumes"]}
    assert (mounts["token"], secrets["token"]) == ("/srv/rest", "rest-token")
    assert (mounts["tls"], secrets["tls"]) == ("/srv/rest-tls", "rest-tls")
    assert arguments[arguments.index("--tls-cert") + 1] == "/srv/rest-tls/tls.crt"
    assert arguments[arguments.index("--tls-key") + 1] == "/srv/rest-tls/tls.key"
    assert "--access-log" in arguments
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert arguments[arguments.index("--port") + 1] == ports["http"]
    assert arguments[arguments.index("--management") + 1] == ports["management"]
    for probe, path in (("liveness", "live"), ("readiness", "ready")):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": f"/health/{path}", "port": "management"}
    monitor = manifests["PodMonitor", "gw-kaa-gateway-rest"]["spec"]
    assert monitor["podMetricsEndpoints"][0]["port"] == "management"
    service = manifests["Service", "gw-kaa-gateway-rest"]["spec"]
    for selector in (monitor["selector"]["matchLabels"], service["selector"]):
        assert selector.items() <= pod["metadata"]["labels"].items()
    with pytest.raises(Exception, match="existingSecret"):
        render(chart, {"rest": {"enabled": True}})


def test_the_rest_api_has_no_tls_by_default(chart: helm_python.Chart) -> None:
    manifests = render(chart, {"rest": {"enabled": True, "existingSecret": "rest-token"}})
    pod = manifests["Deployment", "gw-kaa-gateway-rest"]["spec"]["template"]["spec"]
    assert not {"--tls-cert", "--tls-key", "--access-log"} & set(pod["containers"][0]["args"])
    assert [volume["name"] for volume in pod["volumes"]] == ["token"]
