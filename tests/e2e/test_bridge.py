"""The bridge with a real Mosquitto: devices of the broker and the extensions, two bridges, broker away, NATS away."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mosquitto import Mosquitto
from tests.support.nats import NatsServer


def bridged(
    broker: Mosquitto, replica: str = "bridge-1", settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Changes to the test configuration of a gateway: a bridge, which is fast to come back."""
    return {
        "service": {"instance": {"replica": {"id": replica}}},
        "kaa": {"kpc": {"bridge": {"url": broker.url, **(settings or {})}}},
    }


class BridgeProcess(GatewayProcess):
    """`kaa-gateway bridge` in a process of its own."""

    command = "bridge"

    async def connected(self, count: int = 1) -> None:
        """Wait for a connection to the broker."""
        await until(
            lambda: self.count("bridge_connected") == 1 and self.count("bridge_connections") >= count,
            f"a connection: {self.log}", timeout_s=60,
        )  # fmt: skip


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
async def cluster(nats_server: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(nats_server.url, "dcx", "cex", "unaware") as cluster:
        yield cluster


async def test_messages_answers_pushes_and_refusals(
    nats_server: NatsServer, broker: Mosquitto, cluster: Cluster
) -> None:
    with BridgeProcess(nats_server.url, bridged(broker)) as bridge:
        await bridge.connected()
        async with broker.device("kp1/app_v1/+/t1/#", "kp1/app_v1/unaware/#") as device:

            async def answer() -> tuple[str, bytes]:
                # Its own messages come back too.
                while not (message := await device.message())[0].endswith(("/status", "/error")):
                    pass
                return message

            await device.publish("kp1/app_v1/dcx/t1/json/7", b"{}")
            request = await cluster.request()
            assert (request.fields["endpointId"], request.fields["requestId"]) == ("t1", 7)
            await cluster.answer(request, b"done")
            assert await answer() == ("kp1/app_v1/dcx/t1/json/7/status", b"done")
            await cluster.push("t1", b"reboot", extensionInstanceName="cex", resourcePath="/command/x")
            assert await answer() == ("kp1/app_v1/cex/t1/command/x/status", b"reboot")
            await device.publish("kp1/app_v1/nobody/t1/json/8", b"{}")
            topic, payload = await answer()
            assert topic == "kp1/app_v1/nobody/t1/json/8/error"
            assert json.loads(payload)["statusCode"] == 404
            await device.publish("kp1/app_v1/unaware/x/9", b"{}")
            request = (await cluster.next_requests(2))[-1]
            assert (request.fields["endpointId"], request.fields["resourcePath"]) == (None, "/x")
        # Its own answers came back from the broker, and nobody got them as messages.
        await until(lambda: bridge.count("events", "ignored", "bridge_topic") >= 3, "its own answers")
        assert bridge.count("messages_in", "bridge") == 3


async def test_mapped_topics(nats_server: NatsServer, broker: Mosquitto, cluster: Cluster) -> None:
    settings = {
        "topics": [],
        "up": {"samples": {"source": "plant/{device}/telemetry", "target": "kp1/app_v1/dcx/{device}/json"}},
        "down": {
            "commands": {
                "source": "kp1/app_v1/cex/{device}/command/{type}/status",
                "target": "plant/{device}/do/{type}",
            }
        },
    }
    with BridgeProcess(nats_server.url, bridged(broker, settings=settings)) as bridge:
        await bridge.connected()
        async with broker.device("plant/pump-1/do/+") as device:
            await device.publish("plant/pump-1/telemetry", b"[1]", qos=0)
            request = await cluster.request()
            assert (request.fields["endpointId"], request.fields["resourcePath"]) == ("pump-1", "/json")
            await cluster.push("pump-1", b"5", extensionInstanceName="cex", resourcePath="/command/stop")
            assert await device.message() == ("plant/pump-1/do/stop", b"5")


async def test_the_broker_sends_no_packet_that_is_too_large(
    nats_server: NatsServer, broker: Mosquitto, cluster: Cluster
) -> None:
    settings = {"max-packet-size": 2048}
    with BridgeProcess(nats_server.url, bridged(broker, settings=settings)) as bridge:
        await bridge.connected()
        async with broker.device() as device:
            for qos in (0, 1):
                await device.publish("kp1/app_v1/dcx/t1/json", b"x" * 2048, qos=qos)
                await device.publish("kp1/app_v1/dcx/t1/json", b"%d" % qos, qos=qos)
        found = await cluster.next_requests(2)
        assert [each.fields["payload"] for each in found] == [b"0", b"1"]


async def test_what_waits_for_the_broker_is_bounded(
    nats_server: NatsServer, broker: Mosquitto, cluster: Cluster
) -> None:
    settings = {"queued-bytes": "100KiB"}
    with BridgeProcess(nats_server.url, bridged(broker, settings=settings)) as bridge:
        await bridge.connected()
        async with broker.device() as device:
            await device.publish("kp1/app_v1/dcx/t1/json", b"{}")
            await cluster.request()
        broker.stop()
        await until(lambda: bridge.count("bridge_connected") == 0, "the broker has gone")
        for _ in range(5):
            await cluster.push("t1", b"x" * 40_000, resourcePath="/p")
        await until(lambda: bridge.count("events", "dropped", "bridge_queue_full") == 3, "three are dropped")
        assert bridge.count("queue_depth", "bridge_outgoing_bytes") == 80_000
        broker.start()
        await bridge.connected(2)
        await until(lambda: bridge.count("queue_depth", "bridge_outgoing_bytes") == 0, "the others are sent")


async def test_a_broker_over_tls(nats_server: NatsServer, cluster: Cluster, tmp_path: Path) -> None:
    """Both sides show certificates. A broker of another authority is not trusted."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "other-ca")
    server, client = authority.issue("broker"), authority.issue("bridge")
    with Mosquitto((authority.file, server)) as broker:
        settings = {
            "url": broker.tls_url,
            "ca-file": str(authority.file),
            "cert-file": str(client.cert_file),
            "key-file": str(client.key_file),
        }
        with BridgeProcess(nats_server.url, bridged(broker, settings=settings)) as bridge:
            await bridge.connected()
            async with broker.device("kp1/app_v1/cex/t1/#") as device:
                await device.publish("kp1/app_v1/dcx/t1/json", b"{}")
                assert (await cluster.request()).fields["endpointId"] == "t1"
                await cluster.push("t1", b"1", extensionInstanceName="cex", resourcePath="/command/x")
                assert (await device.message())[1] == b"1"
        for wrong in ({"ca-file": str(stranger.file)}, {"cert-file": None, "key-file": None}):
            changed = {key: value for key, value in (settings | wrong).items() if value is not None}
            bridge = BridgeProcess(nats_server.url, bridged(broker, settings=changed))
            try:
                bridge.launch()
                await until(
                    lambda bridge=bridge: "no connection to the broker" in bridge.log,  # type: ignore[misc]
                    "a refusal",
                    timeout_s=60,
                )
            finally:
                bridge.close()


async def test_one_bridge_keeps_the_order_of_a_device_also_when_it_restarts(
    nats_server: NatsServer, broker: Mosquitto, cluster: Cluster
) -> None:
    """What the broker sends again comes in its order, so of the first time each message comes the order is kept."""
    count = 200
    with BridgeProcess(nats_server.url, bridged(broker)) as bridge:
        await bridge.connected()
        async with broker.device() as device:
            for number in range(count // 2):
                await device.publish("kp1/app_v1/dcx/t1/json", b"%d" % number)
            bridge.kill()
            for number in range(count // 2, count):
                await device.publish("kp1/app_v1/dcx/t1/json", b"%d" % number)
            bridge.start()

            def numbers() -> list[int]:
                return list(dict.fromkeys(int(each.fields["payload"]) for each in cluster.requests))

            await until(lambda: len(numbers()) == count, "all messages", timeout_s=60)
        assert numbers() == list(range(count))


async def test_two_bridges_share_the_load_and_push_once(
    nats_server: NatsServer, broker: Mosquitto, cluster: Cluster
) -> None:
    count = 40
    with ExitStack() as stack:
        bridges = [
            stack.enter_context(BridgeProcess(nats_server.url, bridged(broker, f"bridge-{number}")))
            for number in (1, 2)
        ]
        for bridge in bridges:
            await bridge.connected()
        async with broker.device("kp1/app_v1/cex/t1/#") as device:
            for number in range(count):
                await device.publish("kp1/app_v1/dcx/t1/json", b"%d" % number)
            requests = await cluster.next_requests(count)
            assert sorted(int(each.fields["payload"]) for each in requests) == list(range(count))
            await until(
                lambda: all(bridge.count("messages_in", "bridge") > 0 for bridge in bridges), "both to work"
            )
            assert sum(bridge.count("messages_in", "bridge") for bridge in bridges) == count
            for number in range(5):
                await cluster.push(
                    "t1", b"%d" % number, extensionInstanceName="cex", resourcePath="/command/x"
                )
                # One of the two publishes it; a second copy would come before the next push.
                assert (await device.message())[1] == b"%d" % number
            # The one that is left takes the pushes over when the device sends again.
            owner = max(bridges, key=lambda each: each.count("messages_out", "bridge"))
            assert owner.count("messages_out", "bridge") == 5
            owner.stop()
            await device.publish("kp1/app_v1/dcx/t1/json", b"last")
            await cluster.next_requests(count + 1)
            await cluster.push("t1", b"new", extensionInstanceName="cex", resourcePath="/command/x")
            assert (await device.message())[1] == b"new"


async def test_a_broker_that_goes_away(nats_server: NatsServer, broker: Mosquitto, cluster: Cluster) -> None:
    with BridgeProcess(nats_server.url, bridged(broker)) as bridge:
        await bridge.connected()
        async with broker.device() as device:
            await device.publish("kp1/app_v1/dcx/t1/json", b"1")
            await cluster.request()
        broker.stop()
        await until(lambda: bridge.count("bridge_connected") == 0, "the loss of the broker", timeout_s=60)
        # What comes for the device meanwhile is kept.
        await cluster.push("t1", b"kept", extensionInstanceName="cex", resourcePath="/command/x")
        await until(lambda: bridge.count("queue_depth", "bridge_outgoing") == 1, "the push in the queue")
        assert bridge.ready() is False
        broker.start()
        async with broker.device("kp1/app_v1/cex/t1/#") as device:
            await bridge.connected(2)
            assert (await device.message())[1] == b"kept"
            await device.publish("kp1/app_v1/dcx/t1/json", b"2")
            # The broker sends the first one again if it stopped before it had the PUBACK.
            await until(lambda: cluster.requests[-1].fields["payload"] == b"2", "the second message")
        assert bridge.count("events", "closed", "bridge_broker_lost") >= 1


async def test_nats_that_goes_away(nats_server: NatsServer, broker: Mosquitto) -> None:
    """The broker keeps what NATS does not have, and nothing is lost."""
    total = 60
    with BridgeProcess(nats_server.url, bridged(broker, settings={"receive-maximum": 20})) as bridge:
        await bridge.connected()
        async with broker.device() as device:
            async with Cluster(nats_server.url, "dcx") as cluster:
                await device.publish("kp1/app_v1/dcx/t1/json", b"0")
                await cluster.request()
            nats_server.kill()
            await until(lambda: bridge.count("nats_up") == 0, "the loss of NATS", timeout_s=60)
            for number in range(1, total):
                await device.publish("kp1/app_v1/dcx/t1/json", b"%d" % number)
            await until(
                lambda: bridge.count("queue_depth", "bridge_unacknowledged") == 20, "what it has taken"
            )
            nats_server.start()
            async with Cluster(nats_server.url, "dcx") as cluster:

                def seen() -> set[int]:
                    return {int(each.fields["payload"]) for each in cluster.requests}

                try:
                    await until(lambda: len(seen()) > 0, "messages again", timeout_s=60)
                    # Those that NATS got before the extension was back had no responder.
                    await until(
                        lambda: bridge.count("queue_depth", "bridge_unacknowledged") == 0
                        and bridge.count("messages_in", "bridge") >= total,
                        "everything to be acknowledged", timeout_s=60,
                    )  # fmt: skip
                finally:
                    assert bridge.running, bridge.log
                # NATS has them all; the last ones may still be on their way to the extension.
                told = bridge.count("events", "refused", "no_responders")
                await until(lambda: len(set(range(1, total)) - seen()) <= told, "all that were not refused")


async def test_messages_for_a_bridge_that_is_away(
    nats_server: NatsServer, broker: Mosquitto, cluster: Cluster
) -> None:
    """A bridge that has died gets what the broker has kept for it, and what it had not acknowledged."""
    with BridgeProcess(nats_server.url, bridged(broker)) as bridge:
        await bridge.connected()
        bridge.kill()
        async with broker.device() as device:
            for number in range(10):
                await device.publish("kp1/app_v1/dcx/t1/json", b"%d" % number)
        bridge.start()
        requests = await cluster.next_requests(10)
        assert sorted(int(each.fields["payload"]) for each in requests) == list(range(10))
        assert bridge.stop() == 0
        # It has left the share: the broker keeps nothing for it.
        await asyncio.sleep(0)
