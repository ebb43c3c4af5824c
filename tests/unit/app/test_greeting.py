"""What `kaa-gateway dev` prints of the REST API, and of clients with a tenant."""

from pathlib import Path

import pytest
from kaa_gateway.app.greeting import Platform, greeting
from kaa_gateway.config import load

from tests.support.gateway import ROOT

PORTS = {"mqtt": 1883, "http": 8080, "admin": 8008}
DEMO = ROOT / "gateway" / "kaa_gateway" / "app" / "demo-config.yml"


def lines(rest_port: int | None, config: Path = DEMO) -> list[str]:
    return greeting(Platform(load(config, {}), PORTS, "nats://localhost:4222", 4222, rest_port, None))


def test_the_addresses_of_the_api_and_the_demo_page() -> None:
    printed = lines(8009)
    assert "REST API    http://localhost:8009/openapi.json" in printed
    assert "Demo page   http://localhost:8009/demo#my-device/demo_application_v1" in printed
    assert printed[-1] == "ready"


def test_without_its_packages_the_api_is_said_to_be_missing() -> None:
    printed = lines(None)
    assert "REST API    is not installed: pip install litestar uvicorn" in printed
    assert not [line for line in printed if line.startswith("Demo page")]


def test_without_an_application_for_data_there_is_no_demo_page(tmp_path: Path) -> None:
    file = tmp_path / "service-config.yml"
    file.write_text("kaa: {applications: {app: {versions: {app_v1: {allowed-extension-instances: []}}}}}")
    printed = lines(8009, file)
    assert [line for line in printed if line.startswith("REST API")]
    assert not [line for line in printed if line.startswith("Demo page")]


@pytest.mark.parametrize("rest_port", [8009, None])
def test_the_live_page_comes_first(rest_port: int | None) -> None:
    printed = lines(rest_port)
    assert printed.index("Live page   http://localhost:8008/") + 1 == next(
        place for place, line in enumerate(printed) if line.startswith("REST API")
    )


@pytest.mark.parametrize(
    ("application", "tenant", "user"),
    [("", "demo", "my-client"), ("tenant: acme, ", "acme", "my-client@acme")],
)
def test_the_client_is_one_of_the_tenant_of_the_application(
    tmp_path: Path, application: str, tenant: str, user: str
) -> None:
    file = tmp_path / "service-config.yml"
    versions = "versions: {app_v1: {allowed-extension-instances: [dcx]}}"
    file.write_text(f"kaa: {{applications: {{app: {{{application}{versions}}}}}}}")
    platform = Platform(load(file, {}), PORTS, "nats://localhost:4222", 4222, 8009, "demo")
    printed = "\n".join(greeting(platform))
    assert f"auth add-client my-client --tenant {tenant} --password" in printed
    assert f"curl -i -u {user}:my-password " in printed
    assert f"mosquitto_pub -p 1883 -u {user} -P my-password " in printed
