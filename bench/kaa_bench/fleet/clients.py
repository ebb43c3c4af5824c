"""A process of simulated clients. It is told on standard input what to do, and answers each line on standard output.

`pause` and `go on` are confirmed by `done`; `where` is answered with the gateway of each client at rest in JSON,
`unrest` with what each other client waits for, `awaited` with the number of pushes and answers that have not come, and
`end` with the tally, after the acknowledged messages are in a file.
"""

import asyncio
import sys
from pathlib import Path

import msgspec
import uvloop

from kaa_bench.fleet.client import Client
from kaa_bench.fleet.credentials import Credentials
from kaa_bench.fleet.ledger import records
from kaa_bench.fleet.names import client_of
from kaa_bench.fleet.tally import Tally

START_S = 0.01
"""Seconds between the first connections of two clients."""


class Settings(msgspec.Struct, frozen=True):
    """What the clients of a process are."""

    first: int
    count: int
    ports: list[int]
    tls_ports: list[int]
    credentials: str
    """The directory of credentials."""
    send_s: float
    roam_s: float
    away_s: float
    seed: int
    acknowledged_file: str


async def live(settings: Settings) -> None:
    """Run the clients until standard input says `end`, or ends."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    tally = Tally()
    credentials = Credentials(Path(settings.credentials))
    clients = [
        Client(
            number,
            credentials.access(number, settings.ports, settings.tls_ports),
            tally,
            send_s=settings.send_s,
            roam_s=settings.roam_s,
            away_s=settings.away_s,
            seed=settings.seed * 1_000_003 + number,
        )
        for number in range(settings.first, settings.first + settings.count)
    ]
    tasks: list[asyncio.Task[None]] = []

    async def start() -> None:
        for client in clients:
            tasks.append(loop.create_task(client.run()))
            await asyncio.sleep(START_S)

    starting = loop.create_task(start())
    while (line := (await commands.readline()).decode().strip()) and line != "end":
        answer: object = "done"
        if line == "awaited":
            answer = sum(len(client.awaited) for client in clients)
        elif line == "where":
            answer = {client.token: client.gateway for client in clients if client.gateway is not None}
        elif line == "unrest":
            answer = {client.token: client.waits_for for client in clients if client.waits_for is not None}
        else:
            for client in clients:
                client.paused = line == "pause"
        print(msgspec.json.encode(answer).decode(), flush=True)
    starting.cancel()
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for client in clients:
        tally.missing += client.awaited
    acknowledged = records(
        (client_of(client.token), number) for client in clients for number in client.acknowledged
    )
    await asyncio.to_thread(Path(settings.acknowledged_file).write_bytes, acknowledged)
    for each in ended:
        if isinstance(each, Exception):
            raise each
    print(msgspec.json.encode(tally).decode(), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live(msgspec.json.decode(sys.argv[1], type=Settings)))
