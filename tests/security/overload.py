"""What a gateway's memory comes to under overload: `python -m tests.security.overload` prints a table.

A gateway with the default bounds, in a process of its own for each kind; "peak" is VmHWM. That the bounds hold is the
tests' business; this shows what they are worth in bytes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.wire import coap

from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST, NatsServer

MiB = 1024 * 1024
CONNECTIONS = 4000
TOPICS = 150_000
QOS_2_MESSAGES = 4096
ADDRESSES = 30_000
FLOOD = 200 * MiB
SEND_TIMEOUT_S = 2.0


def peak(pid: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


@contextlib.contextmanager
def connections(
    port: int, count: int, *, clean: bool | None = True, client_id: str = ""
) -> Iterator[list[socket.socket]]:
    """Connections; with `clean` None nothing is sent over them, else CONNECT, and CONNACK is awaited."""
    sockets = []
    try:
        for _ in range(count):
            sockets.append(socket.create_connection((HOST, port), timeout=20))
            if clean is not None:
                sockets[-1].sendall(mqtt.encode(mqtt.Connect(client_id, clean, 0)))
                sockets[-1].recv(4)
        yield sockets
    finally:
        for each in sockets:
            each.close()


def ping(connection: socket.socket) -> None:
    """All that was sent before is read when this returns."""
    connection.sendall(mqtt.encode(mqtt.Pingreq()))
    while mqtt.encode(mqtt.Pingresp()) not in connection.recv(65_536):
        pass


def half_open(gateway: GatewayProcess, _: NatsServer) -> None:
    with connections(gateway.mqtt_port, CONNECTIONS, clean=None):
        time.sleep(1)


def incomplete_packets(gateway: GatewayProcess, _: NatsServer) -> None:
    """More of them than `limits.input-memory` takes."""
    part = mqtt.encode(mqtt.Publish("kp1/app_v1/dcx/t/json", bytes(200 * 1024)))[:-1]
    with connections(gateway.mqtt_port, CONNECTIONS) as clients:
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.sendall(part)
        time.sleep(2)


def many_topics(gateway: GatewayProcess, _: NatsServer) -> None:
    with connections(gateway.mqtt_port, 1) as (client,):
        for start in range(0, TOPICS, 1000):
            topics = (f"kp1/app_v1/dcx/t/{'x' * 100}/{number}/y" for number in range(start, start + 1000))
            client.sendall(b"".join(mqtt.encode(mqtt.Publish(topic, b"")) for topic in topics))
        ping(client)


def many_tokens(gateway: GatewayProcess, _: NatsServer) -> None:
    with connections(gateway.mqtt_port, 10) as clients:
        for index, client in enumerate(clients):
            for start in range(0, 12_000, 100):
                topics = (
                    f"kp1/app_v1/dcx/token-{index}-{number}/json" for number in range(start, start + 100)
                )
                client.sendall(b"".join(mqtt.encode(mqtt.Publish(topic, b"")) for topic in topics))
            ping(client)


def many_subscriptions(gateway: GatewayProcess, _: NatsServer) -> None:
    with connections(gateway.mqtt_port, 200) as clients:
        for client in clients:
            for start in range(0, 1000, 50):
                names = tuple((f"x/{'y' * 1000}/{number}", 1) for number in range(start, start + 50))
                client.sendall(mqtt.encode(mqtt.Subscribe(1, names)))
            ping(client)


def qos_2_identifiers(gateway: GatewayProcess, _: NatsServer) -> None:
    packets = b"".join(
        mqtt.encode(mqtt.Publish("outside", b"", 2, number)) for number in range(1, QOS_2_MESSAGES + 1)
    )
    with connections(gateway.mqtt_port, 200) as clients:
        for client in clients:
            client.sendall(packets)
            ping(client)


def take_overs(gateway: GatewayProcess, _: NatsServer) -> None:
    with connections(gateway.mqtt_port, CONNECTIONS, clean=False, client_id="one"):
        time.sleep(1)


def addresses(gateway: GatewayProcess, _: NatsServer) -> None:
    path = tuple((11, level) for level in (b"kp1", b"app_v1", b"dcx", b"t"))
    datagram = coap.encode(coap.Message(0, 2, 1, b"", (*path, (27, b"\x08")), bytes(16)))
    for number in range(ADDRESSES):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            device.bind((f"127.{number % 250 + 1}.{number // 250 % 250}.1", 0))
            device.sendto(datagram, (HOST, gateway.coap_port))
    time.sleep(2)


def nats_stands_still(gateway: GatewayProcess, nats: NatsServer) -> None:
    packet = mqtt.encode(mqtt.Publish("kp1/app_v1/dcx/t/json", bytes(60_000), 1, 1))
    os.kill(nats.pid, signal.SIGSTOP)
    try:
        with connections(gateway.mqtt_port, 50) as clients:
            for client in clients:
                client.settimeout(SEND_TIMEOUT_S)
            for _ in range(FLOOD // len(packet) // len(clients)):
                for client in list(clients):
                    try:
                        client.sendall(packet)
                    except TimeoutError:
                        clients.remove(client)
                        client.close()
    finally:
        os.kill(nats.pid, signal.SIGCONT)


OVERLOADS: dict[str, Callable[[GatewayProcess, NatsServer], None]] = {
    "nothing": lambda *_: None,
    f"{CONNECTIONS:,} connections without CONNECT": half_open,
    f"{CONNECTIONS:,} clients in the middle of a packet of 200 KiB": incomplete_packets,
    f"{TOPICS:,} topics": many_topics,
    "10 clients with 12,000 tokens each": many_tokens,
    "200 clients with 1,000 topic filters of 1 KB": many_subscriptions,
    "200 clients with 4,096 QoS 2 identifiers": qos_2_identifiers,
    f"{CONNECTIONS:,} take-overs of a client": take_overs,
    f"{ADDRESSES:,} CoAP addresses with a body in blocks each": addresses,
    f"{FLOOD // MiB} MiB while NATS stands still": nats_stands_still,
}


def main() -> None:
    """Print the table."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for name, overload in OVERLOADS.items():
        with NatsServer() as nats, GatewayProcess(nats.url) as gateway:
            overload(gateway, nats)
            print(f"{name:60} {peak(gateway.pid):7.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
