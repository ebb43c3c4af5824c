"""The OpenAPI document of the REST API."""

from typing import Any

import httpx
from kaa_ext.rest.app import application
from kaa_ext.rest.connection import Connection
from kaa_ext.rest.observation import Metrics
from kaa_ext.rest.services import Instances, Services


async def document() -> dict[str, Any]:
    services = Services(Connection(["nats://localhost:1"]), Instances())
    app: Any = application(services, None, Metrics(services))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        found: dict[str, Any] = (await http.get("/openapi.json")).json()
        return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


async def test_every_operation_has_a_name_a_summary_and_a_tag() -> None:
    found = await document()
    assert found["openapi"] == "3.1.0"
    names = [operation["operationId"] for _, _, operation in operations(found)]
    assert len(names) == len(set(names)) == 20
    tags = {tag["name"] for tag in found["tags"]}
    for path, method, operation in operations(found):
        assert path.startswith("/api/v1/")
        assert operation["summary"], (path, method)
        assert set(operation["tags"]) <= tags


async def test_every_operation_tells_its_problems() -> None:
    for path, method, operation in operations(await document()):
        responses = operation["responses"]
        assert {"400", "401", "403", "503"} <= set(responses), (path, method)
        for status, response in responses.items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (path, method, status)


async def test_no_parameter_may_be_null() -> None:
    for path, _, operation in operations(await document()):
        for parameter in operation.get("parameters", []):
            assert "oneOf" not in parameter["schema"], (path, parameter["name"])
            assert "type" in parameter["schema"] or "enum" in parameter["schema"], (path, parameter)


async def test_while_nats_is_away_it_is_not_ready() -> None:
    services = Services(Connection(["nats://localhost:1"]), Instances())
    app: Any = application(services, None, Metrics(services))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 503
        away = await http.get("/api/v1/endpoints/ep/metadata")
        assert (away.status_code, away.json()["detail"]) == (503, "NATS cannot be reached")
