"""NATS as others run it: lame duck mode, leaf nodes, accounts with limits, and accounts that import from each other."""

import asyncio
import json
import os
import signal

import httpx
import nats
import nats.js.errors
import pytest
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_ext import Extension, Request
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess, merged
from tests.support.leaf_node import leaf
from tests.support.load import Counter, Device
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer, free_port

PASSWORD = "secret"
LIMITED = """
accounts {{
  GATEWAYS: {{
    users: [{{user: gateway, password: secret}}, {{user: cluster, password: secret}}]
    limits: {{ {limits} }}
  }}
}}
"""
TWO_ACCOUNTS = """
accounts {
  GATEWAYS: {
    users: [{user: gateway, password: secret}]
    exports: [{stream: "kaa.v1.service.*.esp.ClientData"}, {stream: "kaa.v1.events.>"}]
    imports: [
      {stream: {account: SERVICES, subject: "kaa.v1.service.kpc.esp.ExtensionData"}}
      {stream: {account: SERVICES, subject: "kaa.v1.replica.*.esp.ExtensionData"}}
    ]
  }
  SERVICES: {
    users: [{user: cluster, password: secret}]
    exports: [{stream: "kaa.v1.service.*.esp.ExtensionData"}, {stream: "kaa.v1.replica.*.esp.ExtensionData"}]
    imports: [
      {stream: {account: GATEWAYS, subject: "kaa.v1.service.*.esp.ClientData"}}
      {stream: {account: GATEWAYS, subject: "kaa.v1.events.>"}}
    ]
  }
}
"""


def url(server: NatsServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:{PASSWORD}@")


async def status_of(gateway: GatewayProcess, path: str = "dcx/thing/json", body: bytes = b"[1]") -> int:
    """The status of one request over HTTP."""
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"http://{HOST}:{gateway.http_port}/kp1/app_v1/{path}", content=body)
        return answer.status_code


async def exchange(gateway: GatewayProcess, cluster: Cluster, token: str) -> None:
    """One message up, its answer, and a push."""
    async with mqtt_client(gateway.mqtt_port) as device:
        topic = f"kp1/app_v1/dcx/{token}/json/1"
        await device.subscribe(f"kp1/app_v1/dcx/{token}/#")
        await device.send(Publish(topic, b"[1]", 0))
        await until(
            lambda: any(each.fields["endpointId"] == token for each in cluster.requests), "the message"
        )
        (request,) = (each for each in cluster.requests if each.fields["endpointId"] == token)
        await cluster.answer(request, b"answer")
        assert (await device.expect(Publish)).payload == b"answer"
        await cluster.push(token, b"push")
        assert (await device.expect(Publish)).payload == b"push"


async def is_known_to(url: str, counter: Counter) -> None:
    """Return when a server of the cluster knows the counter's subscription: it learns of this later one after it."""
    heard = asyncio.Event()

    async def hear(_: Msg) -> None:
        heard.set()

    await counter.nats.subscribe("probe", cb=hear)
    async with await nats.connect(url) as other:
        while not heard.is_set():
            await other.publish("probe")
            await other.flush()
            await asyncio.sleep(0.02)


async def test_lame_duck_mode_moves_the_gateway_and_loses_nothing() -> None:
    """As `nats-server --signal ldm` begins it, of the server of a cluster that the gateway is connected to."""
    ports = [free_port(), free_port()]
    routes = ", ".join(f'"nats://{HOST}:{port}"' for port in ports)
    one, two = (
        NatsServer(config=f'cluster {{ name: two, listen: "{HOST}:{port}", routes: [{routes}] }}')
        for port in ports
    )
    # The server itself would end the connection after its grace period, which is 10 s.
    with one, two, GatewayProcess(one.url) as gateway:
        async with Counter(two.url) as counter:
            await is_known_to(one.url, counter)
            device = Device(gateway.mqtt_port, "device")
            device.start()
            await device.acknowledges(200)
            os.kill(one.pid, signal.SIGUSR2)
            await until(lambda: gateway.count("nats_connects") == 2, "another connection", 60)
            assert "lame duck" in gateway.log
            await device.acknowledges(400)
            await device.finish()
            await counter.settle()
            assert counter.missing(device) == set()
            assert not device.told, "no error of the gateway"
        await until(gateway.ready, "the control connection", 60)


async def test_a_gateway_at_a_leaf_node_serves_extensions_at_the_hub() -> None:
    """While the two are apart, devices get 503 at once, and the gateway stays ready."""
    with leaf() as (hub, node, proxy), GatewayProcess(node.url) as gateway:
        async with Cluster(hub.url, "dcx") as cluster:
            await until_heard(gateway, cluster, "first")
            await exchange(gateway, cluster, "one")
            proxy.refuse()
            proxy.cut()
            await until_status(gateway, 503)
            assert gateway.ready()
            proxy.refuse(on=False)
            await until_heard(gateway, cluster, "again")
            await exchange(gateway, cluster, "two")
        assert gateway.count("nats_connects") == 1


DURABLE = {
    "kaa": {
        "tenants": {"acme": {"quota": {"messages-per-month": 1000}}},
        "applications": {"app": {"tenant": "acme"}},
        "extension-instances": {"dcx": {"durable": True}},
        "kpc": {"events": {"presence": True, "presence-lease": 3}},
    }
}
"""Whatever a gateway keeps in JetStream."""


@pytest.mark.parametrize(
    ("hub_domain", "node_domain", "setting", "at_hub"),
    [
        pytest.param("hub", None, "hub", True, id="JetStream at the hub only"),
        pytest.param("hub", "site", "hub", True, id="JetStream at both, that of the hub"),
        pytest.param("hub", "site", None, False, id="JetStream at both, that of the leaf node"),
        pytest.param(None, "site", None, False, id="JetStream at the leaf node only"),
    ],
)
async def test_jetstream_of_a_hub_and_of_a_leaf_node(
    hub_domain: str | None, node_domain: str | None, setting: str | None, at_hub: bool
) -> None:
    changes = {"kaa": {"kpc": {"nats": {"jetstream-domain": setting}}}} if setting else {}
    with (
        leaf(hub_domain=hub_domain, node_domain=node_domain) as (hub, node, _),
        GatewayProcess(node.url, merged(DURABLE, changes)) as gateway,
    ):
        client = await nats.connect((hub if at_hub else node).url)
        try:
            jetstream = client.jetstream()
            async with mqtt_client(gateway.mqtt_port) as device:
                await device.send(Publish("kp1/app_v1/dcx/one/json", b"[1]", 1, 1))
                assert await device.receive() == Puback(1)
                assert (await jetstream.stream_info("kaa-dcx")).state.messages == 1
                presence = await shown(jetstream, "kpc-presence", 2)
                assert {key.split(".")[0] for key in presence} == {"endpoint", "replica"}
            month = await shown(jetstream, "kpc-quotas", 1)
            assert [json.loads(value)["messages"] for value in month.values()] == [1]
            await until(lambda: gateway.count("durable_up", "dcx") == 1, "the lane")
            assert "cannot be used" not in gateway.log
        finally:
            await client.close()


@pytest.mark.parametrize(
    ("node_domain", "domain"),
    [(None, "hub"), ("site", "hub"), ("site", None)],
    ids=["hub", "both", "leaf node"],
)
async def test_a_durable_extension_at_a_leaf_node(node_domain: str | None, domain: str | None) -> None:
    """It takes its requests from the stream in the domain that it names, acknowledges them, and has its state there."""
    changes = {"kaa": {"kpc": {"nats": {"jetstream-domain": domain}}}} if domain else {}
    with (
        leaf(hub_domain="hub", node_domain=node_domain) as (hub, node, _),
        GatewayProcess(node.url, merged(DURABLE, changes)) as gateway,
    ):
        extension = Extension("dcx", nats_urls=[node.url], durable=True, jetstream_domain=domain)
        state = extension.state("seen", str)

        @extension.handler("/json")
        async def keep(request: Request) -> bytes:
            await state.put("last", value=request.payload.decode())
            return b"kept"

        client = await nats.connect((hub if domain else node).url)
        try:
            async with extension, mqtt_client(gateway.mqtt_port) as device:
                await device.send(Publish("kp1/app_v1/dcx/one/json/7", b"[1]", 1, 1))
                assert await device.expect(Puback) == Puback(1)
                assert (await device.expect(Publish)).payload == b"kept"
                assert await state.get("last") == "[1]"
                info = await client.jetstream().consumer_info("kaa-dcx", "kaa-dcx")
                assert info.num_ack_pending == 0
                assert (await client.jetstream().stream_info("kaa-dcx")).state.messages == 0
        finally:
            await client.close()


async def test_a_gateway_that_does_not_name_the_domain_of_its_hub_says_what_is_missing() -> None:
    """A leaf node does not pass requests to JetStream on to its hub, unless they name the domain."""
    with leaf(hub_domain="hub") as (_, node, _):
        gateway = GatewayProcess(node.url, DURABLE)
        try:
            gateway.launch()
            await until(lambda: "JetStream is not enabled, or not there" in gateway.log, "the log", 60)
            assert not gateway.ready()
        finally:
            gateway.close()


async def shown(jetstream: JetStreamContext, name: str, count: int) -> dict[str, bytes]:
    """The entries of a bucket, as soon as there are so many."""
    async with asyncio.timeout(60):
        while True:
            try:
                bucket = await jetstream.key_value(name)
                keys = await bucket.keys()
            except (nats.js.errors.NotFoundError, nats.js.errors.NoKeysError):
                keys = []
            if len(keys) >= count:
                return {key: (await bucket.get(key)).value or b"" for key in keys}
            await asyncio.sleep(0.1)


async def _send(gateway: GatewayProcess, token: str) -> None:
    async with mqtt_client(gateway.mqtt_port) as device:
        await device.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"[1]", 0))
        await device.until_pingresp()


async def until_heard(gateway: GatewayProcess, cluster: Cluster, token: str) -> None:
    """Return when messages of a device arrive at the cluster: interest takes a moment to spread."""
    async with asyncio.timeout(60):
        while not any(each.fields["endpointId"] == token for each in cluster.requests):
            await _send(gateway, token)


async def until_status(gateway: GatewayProcess, status: int) -> None:
    """Return when requests over HTTP get this status. Those that an extension takes get 504 when it does not answer."""
    async with asyncio.timeout(60):
        while await status_of(gateway) != status:
            pass


async def test_accounts_that_import_streams_from_each_other() -> None:
    """Gateways in one account, services in another: by the subjects of 4/ESP and of events, and by no others."""
    with NatsServer(config=TWO_ACCOUNTS) as server, GatewayProcess(url(server, "gateway")) as gateway:
        async with Cluster(url(server, "cluster"), "dcx") as cluster:
            await exchange(gateway, cluster, "one")
            await cluster.connectivity("connected", "one")
            assert await status_of(gateway, "tsx/thing/time") == 503, (
                "nobody there is told across accounts too"
            )
        await until_status(gateway, 503)
        assert gateway.ready()


async def test_a_subject_that_the_account_maps_to_another() -> None:
    """An operator moves the messages of one extension instance to another."""
    mapped = """mappings: { "kaa.v1.service.dcx.esp.ClientData": "kaa.v1.service.bcx.esp.ClientData" }"""
    with NatsServer(config=mapped) as server, GatewayProcess(server.url) as gateway:
        assert await status_of(gateway) == 503
        assert gateway.count("events", "refused", "no_responders") == 1
        async with Cluster(server.url, "bcx") as cluster:
            await _send(gateway, "one")
            assert (await cluster.request()).fields["endpointId"] == "one"


async def test_the_payload_of_an_account_is_limited() -> None:
    """NATS closes the connection at the first message that is too large; that one is refused, and no other is lost."""
    with (
        NatsServer(config=LIMITED.format(limits="max_payload: 4096")) as server,
        GatewayProcess(url(server, "gateway")) as gateway,
    ):
        async with Cluster(url(server, "cluster"), "dcx") as cluster:
            await exchange(gateway, cluster, "one")
            assert await status_of(gateway, body=b"x" * 8192) == 413
            await exchange(gateway, cluster, "two")
            connects = gateway.count("nats_connects")
            assert connects <= 2
            assert await status_of(gateway, body=b"x" * 8192) == 413
            assert gateway.count("nats_connects") == connects


@pytest.mark.parametrize("most", [0, 1])
async def test_the_connections_of_an_account_are_limited(most: int) -> None:
    """The gateway says so, once, and is ready as soon as there is room."""
    with NatsServer(config=LIMITED.format(limits=f"max_connections: {most}")) as server:
        gateway = GatewayProcess(url(server, "gateway"))
        try:
            gateway.launch()
            await until(
                lambda: "maximum account active connections exceeded" in gateway.log.lower(), "the log", 60
            )
            if most == 0:
                assert not gateway.ready()
            server.reload(LIMITED.format(limits="max_connections: 10"))
            await until(lambda: gateway.ready() and gateway.count("nats_control_up") == 1, "readiness", 60)
            assert gateway.log.lower().count("maximum account active connections exceeded") <= 2
        finally:
            gateway.close()


async def test_the_subscriptions_of_an_account_are_limited() -> None:
    """Without its subscriptions a gateway gets no answers: it is not ready until it has them."""
    with NatsServer(config=LIMITED.format(limits="max_subscriptions: 1")) as server:
        gateway = GatewayProcess(url(server, "gateway"))
        try:
            gateway.launch()
            await until(lambda: "maximum subscriptions exceeded" in gateway.log, "the log", 60)
            assert not gateway.ready()
            server.reload(LIMITED.format(limits="max_subscriptions: 100"))
            await until(gateway.ready, "readiness", 60)
        finally:
            gateway.close()


async def test_an_account_without_jetstream_serves_devices() -> None:
    """What needs a stream says so; all else works."""
    changes = {
        "kaa": {
            "tenants": {"acme": {"quota": {"messages-per-month": 1000}}},
            "applications": {"app": {"tenant": "acme"}},
        }
    }
    with (
        NatsServer(config=LIMITED.format(limits=""), jetstream=True) as server,
        GatewayProcess(url(server, "gateway"), changes) as gateway,
    ):
        async with Cluster(url(server, "cluster"), "dcx") as cluster:
            await exchange(gateway, cluster, "one")
        assert gateway.ready()
        await until(lambda: "a JetStream bucket cannot be used" in gateway.log, "a line in the log")
        assert gateway.log.count("a JetStream bucket cannot be used") <= 2, "each reason once"
