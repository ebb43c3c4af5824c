"""A device that gets pushes, and loses its registration now and then.

The soak itself sends the pushes and the events of 9/ELCE, over one NATS connection. The device connects again after
each loss, which provider `open` allows.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import nats.errors
from kaa_gateway.bus import elce, subjects
from kaa_gateway.wire.esp import encode_extension_data
from nats.aio.client import Client

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.processes import HOST
from kaa_bench.soak.devices import Device
from kaa_bench.soak.mqtt_device import CONNECT_TIMEOUT_S, PING_S, Connection, ping

REVOCATION_EACH_S = 5.0
PUSH_PATH = "/pushed"


class PushedDevice(Device):
    """A device with one subscription. `push` sends to it."""

    kind = "MQTT, pushed"
    is_connected = False

    async def session(self) -> None:
        """See `Device.session`."""
        reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, self.port), CONNECT_TIMEOUT_S)
        connection = Connection(reader, writer)
        try:
            connection.send(mqtt.Connect(self.token, keep_alive=30))
            await asyncio.wait_for(connection.receive(), CONNECT_TIMEOUT_S)
            connection.send(mqtt.Subscribe(1, ((self.path.removesuffix("/json") + PUSH_PATH, 0),)))
            # A message of its own makes the endpoint known to the gateway.
            number = self.history.send()
            connection.send(mqtt.Publish(self.path, self.payload(number)))
            await asyncio.wait_for(connection.receive(), CONNECT_TIMEOUT_S)
            self.is_connected = True
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(ping(connection))
                tasks.create_task(self._receive(connection))
        except* OSError as failures:
            raise ConnectionError("the connection has ended") from failures
        finally:
            self.is_connected = False
            writer.transport.abort()

    async def _receive(self, connection: Connection) -> None:
        while True:
            packet = await asyncio.wait_for(connection.receive(), 2 * PING_S)
            if isinstance(packet, mqtt.Publish) and packet.topic.startswith(
                self.path.removesuffix("/json") + PUSH_PATH
            ):
                self.history.push(float(packet.payload))


async def push(
    client: Client, device: PushedDevice, gateway_instance: str, app_version: str, interval_s: float
) -> None:
    """Send pushes with the time of sending until cancelled, and end the registration of the device now and then."""
    subject = subjects.service(gateway_instance, "esp", subjects.EXTENSION_DATA)
    revoked = time.monotonic()
    while True:
        await asyncio.sleep(interval_s)
        datum = encode_extension_data(
            "", int(time.time() * 1000), 0, app_version, device.instance, device.token, PUSH_PATH, None,
            b"%.6f" % time.monotonic(), 200,
        )  # fmt: skip
        with suppress(nats.errors.Error, OSError):
            await client.publish(subject, datum)
            if device.is_connected and time.monotonic() - revoked > REVOCATION_EACH_S:
                await _revoke(client, device, app_version)
                revoked = time.monotonic()


async def _revoke(client: Client, device: PushedDevice, app_version: str) -> None:
    event = elce.UNREGISTERED_EVENT.encode(
        endpointId=device.token, appVersionName=app_version, originatorReplicaId="soak-0"
    )
    await client.publish(elce.lifecycle_subject("soak", elce.UNREGISTERED), event)
    if device.is_connected:
        device.history.revoke()
