"""The users of the bench, for a test: the run ends when all have done something, however slow the machine is."""

from collections import Counter
from typing import Any

import gevent
from kaa_bench.locust.locustfile import CoapUser, HttpDevice, KpudpUser, MqttUser
from locust import events
from locust.env import Environment

SAMPLES = 3
PROTOCOLS = ("mqtt", "coap", "kpudp", "POST")
users = (CoapUser, HttpDevice, KpudpUser, MqttUser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def stop_when_done(environment: Environment, **_: Any) -> None:
    seen: Counter[str] = Counter()

    def count(request_type: str, name: str, **_: Any) -> None:
        seen[request_type] += name == "sample"
        if min(seen[protocol] for protocol in PROTOCOLS) == SAMPLES and environment.runner is not None:
            # Quitting ends the users, and this is one of them.
            gevent.spawn(environment.runner.quit)

    environment.events.request.add_listener(count)  # type: ignore[no-untyped-call]
