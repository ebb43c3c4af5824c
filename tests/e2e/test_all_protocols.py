"""Two plug-ins, a bridge and MQTT-SN beside the built-in protocols, all at once in one gateway with one extension."""

import asyncio
import json
from pathlib import Path

import aiomqtt
import httpx
from kaa_gateway.tasks import end_tasks

from tests.e2e.test_plugins import LOGIN, PATHS, POSITION, protocols, stream
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.example_protocols import gt06, modbus
from tests.support.gateway import GatewayProcess, merged
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_sn import (
    PINGREQ,
    PINGRESP,
    PREDEFINED,
    PUBACK,
    PUBLISH,
    REGACK,
    REGISTER,
    SnClient,
    publish,
)
from tests.support.mqtt_sn import message as message_of
from tests.support.nats import HOST, NatsServer, free_port

IMEI = "123456789012345"


async def test_all_at_once(nats_server: NatsServer, tmp_path: Path) -> None:
    tracker_port, meter_port, sn_port = free_port(), free_port(), free_port()
    with Mosquitto() as broker:
        sections = protocols(
            gt06={"protocol": "gt06:Gt06", "port": tracker_port, "options": ["command_extension=dcx"]},
            modbus={"protocol": "modbus:Modbus", "port": meter_port, "options": ["count=1"]},
        )
        topics = ["1=kp1/app_v1/dcx/{client-id}/json"]
        mqtt_sn = {"enabled": True, "port": sn_port, "predefined-topics": topics}
        beside = {"bridge": {"enabled": True, "url": broker.url}, "transports": {"mqtt-sn": mqtt_sn}}
        changes = merged(sections, {"kaa": {"kpc": beside}})
        with (
            GatewayProcess(nats_server.url, changes, environment=PATHS) as gateway,
            SnClient(sn_port) as sleeper,
        ):
            await until(lambda: gateway.count("bridge_connected") == 1, "the broker", timeout_s=60)
            async with (
                Cluster(nats_server.url, "dcx") as cluster,
                stream(tracker_port) as tracker,
                stream(meter_port) as meter,
                broker.device("kp1/app_v1/dcx/bridged/push/#") as bridged,
                aiomqtt.Client(HOST, gateway.mqtt_port) as native,
                httpx.AsyncClient() as http,
            ):

                async def answer() -> None:
                    """Answer the requests of HTTP, and of the tracker for its commands."""
                    answered = 0
                    while True:
                        requests = await cluster.next_requests(answered + 1)
                        for request in requests[answered:]:
                            if request.fields["requestId"] is not None:
                                await cluster.answer(request, b"[]")
                        answered = len(requests)

                answering = asyncio.create_task(answer())
                try:
                    await native.publish("kp1/app_v1/dcx/native/json", b"{}", qos=1)
                    url = f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/web/json"
                    assert (await http.post(url, content=b"{}")).status_code == 200
                    await bridged.publish("kp1/app_v1/dcx/bridged/json", b"{}")
                    tracker.writer.write(LOGIN)
                    assert await tracker.read(10) == gt06.encode(gt06.LOGIN, b"", 1)
                    tracker.writer.write(POSITION)
                    meter.writer.write(modbus.encode(0, 1, modbus.REGISTRATION, b"meter"))
                    assert await meter.read(12) == modbus.encode(1, 1, 3, b"\0\0\0\1")
                    meter.writer.write(modbus.encode(1, 1, 3, bytes([2, 0, 7])))
                    await sleeper.connect("sleeper")
                    assert (await sleeper.ask(publish(1, b"{}", qos=1, message_id=1, kind=PREDEFINED)))[
                        0
                    ] == PUBACK
                    await sleeper.sleep(600)
                    senders = {"native", "web", "bridged", IMEI, "meter", "sleeper"}
                    await until(
                        lambda: {each.fields["endpointId"] for each in cluster.requests} == senders,
                        "a message of each",
                    )
                finally:
                    await end_tasks([answering])
                await native.subscribe("kp1/app_v1/dcx/native/#")
                for endpoint, path, payload in (
                    ("native", "/push/x", b"1"),
                    ("bridged", "/push/x", b"2"),
                    ("meter", "/registers/1", b"3"),
                    ("sleeper", "/push/x", b"4"),
                    (IMEI, "/command/x", json.dumps([{"id": 1, "payload": {"command": "A#"}}]).encode()),
                ):
                    await cluster.push(endpoint, payload, resourcePath=path)
                message = await asyncio.wait_for(anext(native.messages), 30)
                assert (str(message.topic), message.payload) == ("kp1/app_v1/dcx/native/push/x/status", b"1")
                assert await bridged.message() == ("kp1/app_v1/dcx/bridged/push/x/status", b"2")
                assert await meter.read(12) == modbus.encode(2, 1, 6, b"\0\1\0\3")
                assert (await tracker.read(19))[:4] == b"xx\x0e\x80"
                kind, body = await sleeper.ask(message_of(PINGREQ, b"sleeper"))
                assert (kind, body[4:].decode()) == (REGISTER, "kp1/app_v1/dcx/sleeper/push/x/status")
                kind, body = await sleeper.ask(message_of(REGACK, body[:4] + b"\0"))
                assert (kind, body[5:]) == (PUBLISH, b"4")
                assert await sleeper.receive() == (PINGRESP, b"")
            for protocol in ("mqtt", "http", "bridge", "gt06", "modbus", "mqtt-sn"):
                assert gateway.count("messages_in", protocol) >= 1, protocol
            assert gateway.stop() == 0
            assert "Traceback" not in gateway.log
