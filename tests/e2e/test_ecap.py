"""The identity provider `ecap`, end to end: tokens that a service of the cluster knows, refuses, and takes back."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Publish

from tests.support.auth_provider import INSTANCE, AuthProvider
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import NatsServer


def settings(**ecap: Any) -> dict[str, Any]:
    return {
        "kaa": {
            "applications": {"app": {"tenant": "acme"}, "other": {"versions": {"other_v1": OTHER}}},
            "kpc": {
                "identity": {
                    "provider": "ecap",
                    "timeout": 20,
                    "ecap": {"service-instance": INSTANCE, "negative-cache-ttl": 0.2, **ecap},
                }
            },
        }
    }


OTHER = {"allowed-extension-instances": ["dcx"]}


@pytest.fixture(scope="module")
def ecap_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """The gateway of this module, whose provider is a test's."""
    with GatewayProcess(shared_nats.url, settings()) as process:
        yield process
        assert process.running, process.log
        assert "Traceback" not in process.log, process.log


async def status_of(device: MqttPeer, topic: str) -> int:
    """Publish with a request ID: the status of the error that comes back."""
    await device.send(Publish(f"{topic}/7", b"refused"))
    error = await device.expect(Publish)
    assert error.topic == f"{topic}/7/error"
    status: int = json.loads(error.payload)["statusCode"]
    return status


async def test_a_token_is_asked_for_once_and_activated_once(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    """However many messages and connections come with it, over whatever protocol."""
    auth.tokens["app", "first"] = ("endpoint-1", "id-1")
    auth.delay = 0.1
    async with mqtt_client(ecap_gateway.mqtt_port) as one, mqtt_client(ecap_gateway.mqtt_port) as two:
        for device in (one, two):
            await device.send(*(Publish("kp1/app_v1/dcx/first/json", b"") for _ in range(10)))
        requests = await cluster.next_requests(20)
        assert {request.fields["endpointId"] for request in requests} == {"endpoint-1"}
        # The same token in another version of the same application.
        await one.send(Publish("kp1/app_v1/dcx/first/other", b""), Publish("kp1/app_v2/echo/first/1", b""))
        await cluster.next_requests(1, after=20)
        await until(lambda: auth.asked["ecap.ep-token-status-transition"] == 1, "the activation")
    assert auth.asked["ecap.ep-token"] == 1
    by_kind = dict(auth.requests)
    assert by_kind["ecap.ep-token"]["token"] == "first"
    assert by_kind["ecap.ep-token"]["timeout"] == 20_000
    transition = by_kind["ecap.ep-token-status-transition"]
    assert (transition["appName"], transition["token"], transition["targetStatus"]) == (
        "app",
        "first",
        "Active",
    )


async def test_a_token_of_another_application_is_refused(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    auth.tokens["other", "foreign"] = ("endpoint-2", "id-2")
    async with mqtt_client(ecap_gateway.mqtt_port) as device:
        assert await status_of(device, "kp1/app_v1/dcx/foreign/json") == 401
        await device.send(Publish("kp1/other_v1/dcx/foreign/json", b"mine"))
        assert (await cluster.request()).fields["endpointId"] == "endpoint-2"


async def test_a_rejected_token_is_asked_for_again_when_its_time_is_over(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    async with mqtt_client(ecap_gateway.mqtt_port) as device:
        assert await status_of(device, "kp1/app_v1/dcx/later/json") == 401
        auth.tokens["app", "later"] = ("endpoint-3", "id-3")
        while not cluster.requests:
            await device.send(Publish("kp1/app_v1/dcx/later/json", b""))
            assert await device.until_pingresp() == []
            await asyncio.sleep(0.05)
    assert auth.asked["ecap.ep-token"] == 2


async def test_a_revocation_ends_the_use_of_a_token_at_once(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    """Mid-session: no message gets through any more, and no push; the connection stays, with its other tokens."""
    auth.tokens["app", "stolen"] = ("endpoint-4", "id-stolen")
    auth.tokens["app", "kept"] = ("endpoint-4", "id-kept")
    async with mqtt_client(ecap_gateway.mqtt_port) as thief, mqtt_client(ecap_gateway.mqtt_port) as owner:
        await thief.send(Publish("kp1/app_v1/dcx/stolen/json", b""))
        await owner.send(Publish("kp1/app_v1/dcx/kept/json", b""))
        await cluster.next_requests(2)
        del auth.tokens["app", "stolen"]
        await auth.tell(
            "endpoint.token.revoked", appName="app", endpointId="endpoint-4", tokenIds=["id-stolen", "id-old"]
        )
        await until(lambda: "tokens revoked" in ecap_gateway.log, "the revocation")
        assert await status_of(thief, "kp1/app_v1/dcx/stolen/json") == 401
        await cluster.push("endpoint-4", b"news")
        assert (await owner.expect(Publish)).payload == b"news"
        await owner.send(Publish("kp1/app_v1/dcx/kept/json", b"still there"))
        assert (await cluster.next_requests(1, after=2))[0].fields["payload"] == b"still there"
        assert await thief.until_pingresp() == []
    assert len(cluster.requests) == 3
    assert '"token": "stolen"' not in ecap_gateway.log, "tokens are shortened"
    assert "stolen" not in ecap_gateway.log


async def test_an_endpoint_that_is_unregistered_loses_its_sessions(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    """9/ELCE: at once, and its tokens are asked for again. A connection with other endpoints stays."""
    auth.tokens["app", "gone"] = ("endpoint-u", "id-u")
    auth.tokens["app", "stays"] = ("endpoint-s", "id-s")
    async with mqtt_client(ecap_gateway.mqtt_port) as only, mqtt_client(ecap_gateway.mqtt_port) as both:
        await only.send(Publish("kp1/app_v1/dcx/gone/json", b""))
        await both.send(*(Publish(f"kp1/app_v1/dcx/{token}/json", b"") for token in ("gone", "stays")))
        await cluster.next_requests(3)
        del auth.tokens["app", "gone"]
        await auth.tell("endpoint.lifecycle.unregistered", appVersionName="app_v1", endpointId="endpoint-u")
        await only.until_closed()
        assert (await cluster.connectivity("disconnected", "endpoint-u"))["endpoints"] == {
            "endpoint-u": "app_v1"
        }
        assert await status_of(both, "kp1/app_v1/dcx/gone/json") == 401
        await both.send(Publish("kp1/app_v1/dcx/stays/json", b"still there"))
        assert (await cluster.next_requests(1, after=3))[0].fields["payload"] == b"still there"
    assert auth.asked["ecap.ep-token"] == 3


async def test_an_endpoint_whose_application_version_is_updated(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    """9/ELCE: its session goes on under the new version, on the same connection."""
    auth.tokens["app", "mover"] = ("endpoint-m", "id-m")
    async with mqtt_client(ecap_gateway.mqtt_port) as device:
        await device.send(Publish("kp1/app_v1/dcx/mover/json", b""))
        await cluster.request()
        assert (await cluster.connectivity("connected", "endpoint-m"))["endpoints"] == {
            "endpoint-m": "app_v1"
        }
        await auth.tell(
            "endpoint.lifecycle.appversion-updated",
            appVersionName="app_v2",
            previousAppVersionName="app_v1",
            endpointId="endpoint-m",
        )
        await until(lambda: "application version of endpoint updated" in ecap_gateway.log, "the update")
        await cluster.push("endpoint-m", b"news", appVersionName=None)
        push = await device.expect(Publish)
        assert (push.topic.split("/")[1], push.payload) == ("app_v2", b"news")
        await until(
            lambda: any(
                kind == "connected" and fields["endpoints"].get("endpoint-m") == "app_v2"
                for kind, fields in cluster.events
            ),
            "the event of the new version",
        )
        assert await device.until_pingresp() == []


async def test_an_update_to_a_version_that_is_not_configured_ends_the_session(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    auth.tokens["app", "lost"] = ("endpoint-l", "id-l")
    async with mqtt_client(ecap_gateway.mqtt_port) as device:
        await device.send(Publish("kp1/app_v1/dcx/lost/json", b""))
        await cluster.request()
        await auth.tell(
            "endpoint.lifecycle.appversion-updated",
            appVersionName="unknown_v9",
            previousAppVersionName="app_v1",
            endpointId="endpoint-l",
        )
        await device.until_closed()


async def test_a_provider_that_cannot_answer_lets_nobody_in(
    ecap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    """And its 503 is not remembered: the next message asks again."""
    auth.tokens["app", "unlucky"] = ("endpoint-5", "id-5")
    auth.status = 500
    async with mqtt_client(ecap_gateway.mqtt_port) as device:
        assert await status_of(device, "kp1/app_v1/dcx/unlucky/json") == 503
        auth.status = None
        await device.send(Publish("kp1/app_v1/dcx/unlucky/json", b""))
        await cluster.request()


async def test_a_provider_that_is_down_at_first(nats_server: NatsServer) -> None:
    """Devices are told 503 when the time is over, and let in once there is a provider, without a restart."""
    timeout = {"kaa": {"kpc": {"identity": {"timeout": 1}}}}
    document = settings()
    document["kaa"]["kpc"]["identity"] |= timeout["kaa"]["kpc"]["identity"]
    with GatewayProcess(nats_server.url, document) as gateway:
        async with Cluster(nats_server.url, "dcx") as cluster, mqtt_client(gateway.mqtt_port) as device:
            topic = "kp1/app_v1/dcx/token/json"
            assert await device.subscribe("kp1/app_v1/dcx/listener/#", qos=1) == (1,)
            assert await status_of(device, topic) == 503
            assert cluster.requests == []
            async with AuthProvider(nats_server.url) as auth:
                auth.silent = True
                assert await status_of(device, topic) == 503
                auth.silent = False
                auth.tokens["app", "token"] = ("endpoint", "id")
                auth.tokens["app", "listener"] = ("listening", "id-l")
                await device.send(Publish(topic, b""))
                assert (await cluster.request()).fields["endpointId"] == "endpoint"
                # Who only listens is identified, too, in time.
                await cluster.connectivity("connected", "listening")


async def test_revocations_that_were_missed_are_found_out(nats_server: NatsServer) -> None:
    """NATS was away when a token was revoked: what is in use is checked again when NATS is back."""
    with GatewayProcess(nats_server.url, settings()) as gateway:
        async with mqtt_client(gateway.mqtt_port) as device:
            async with AuthProvider(nats_server.url) as auth, Cluster(nats_server.url, "dcx") as cluster:
                auth.tokens["app", "good"] = ("endpoint-g", "id-g")
                auth.tokens["app", "bad"] = ("endpoint-b", "id-b")
                await device.send(
                    *(Publish(f"kp1/app_v1/dcx/{token}/json", b"") for token in ("good", "bad"))
                )
                await cluster.next_requests(2)
            nats_server.restart()
            auth = AuthProvider(nats_server.url)
            auth.tokens["app", "good"] = ("endpoint-g", "id-g")
            async with Cluster(nats_server.url, "dcx") as cluster, auth:
                await cluster.connectivity("disconnected", "endpoint-b")
                await device.send(Publish("kp1/app_v1/dcx/good/json", b"still"))
                assert (await cluster.request()).fields["endpointId"] == "endpoint-g"
                assert await status_of(device, "kp1/app_v1/dcx/bad/json") == 401
