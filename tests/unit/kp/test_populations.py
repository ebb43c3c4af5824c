"""The connections and endpoints of tenants and application versions: how they are counted, and what is refused."""

from dataclasses import dataclass

from kaa_bench.mqtt_packets import Publish
from kaa_gateway.kp.quotas import Usage

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, OTHER_APP, TENANT, WorkerDouble


@dataclass
class Limits:
    """What the configuration says of a quota."""

    messages_per_second: float = 0
    bytes_per_second: float = 0
    messages_per_month: int = 0
    connections: int = 0
    endpoints: int = 0


NONE = Limits()
MANY = Limits(connections=1000, endpoints=1000)


def set_quotas(worker: WorkerDouble, *, tenant: Limits = MANY, app_version: Limits = MANY) -> None:
    worker.router.set_quotas({TENANT: tenant}, {APP: app_version}, {}, {APP: TENANT, OTHER_APP: TENANT})


def topic(token: str, app_version: str = APP) -> str:
    return f"kp1/{app_version}/dcx/{token}/json"


def speaker(worker: WorkerDouble, *tokens: str, app_version: str = APP, client_id: str = "") -> Device:
    """A device that has sent a message for each of these endpoints."""
    device = worker.device(client_id, clean=not client_id)
    for token in tokens:
        device.publish(topic(token, app_version), b"1")
        worker.identify()
    return device


def usage(worker: WorkerDouble, scope: str) -> Usage:
    (found,) = [each for each in worker.sessions.quotas.limited() if each.scope == scope]
    return found


def counts(worker: WorkerDouble, scope: str = "tenant") -> tuple[int, int]:
    population = usage(worker, scope).population
    return population.connections, population.endpoints


def refusals(worker: WorkerDouble) -> dict[str, int]:
    counted = worker.counters.by_reason().items()
    return {reason: count for (event, reason), count in counted if event == "refused"}


def test_connections_and_endpoints_are_counted_from_the_first_message_to_the_end() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, tenant=NONE, app_version=NONE)
        assert worker.sessions.quotas.limited() == []
        # They are counted before there is a limit.
        first = speaker(worker, "one", "two")
        set_quotas(worker)
        assert counts(worker) == (1, 2)
        second = speaker(worker, "two", "three")
        third = speaker(worker, "four", app_version=OTHER_APP)
        silent = worker.device()
        assert counts(worker) == (3, 4)
        assert counts(worker, "appVersion") == (2, 3)
        first.drop()
        assert counts(worker) == (2, 3)
        second.drop()
        third.drop()
        silent.drop()
        assert counts(worker) == (0, 0)


def test_a_persistent_session_whose_client_is_away_is_no_connection() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker)
        device = speaker(worker, "one", client_id="client")
        device.drop()
        assert counts(worker) == (0, 1)
        worker.device("client", clean=False)
        assert counts(worker) == (1, 1)


def test_one_more_connection_is_refused() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, tenant=Limits(connections=2))
        first, _ = speaker(worker, "one"), speaker(worker, "two")
        third = worker.device()
        third.publish(f"{topic('three')}/1", b"1", qos=1, packet_id=1)
        worker.identify()
        (error,) = [each for each in third.received() if isinstance(each, Publish)]
        assert b'"statusCode":429' in error.payload
        assert b"The tenant has too many connections" in error.payload
        assert refusals(worker) == {"tenant_connections": 1}
        # Those that are there go on, also with more endpoints.
        first.publish(topic("four"), b"1")
        worker.identify()
        assert refusals(worker) == {"tenant_connections": 1}
        # When one has gone, there is room. This endpoint is known by its route, without being asked for.
        first.drop()
        third.publish(topic("four"), b"1")
        assert refusals(worker) == {"tenant_connections": 1}
        assert counts(worker) == (2, 2)


def test_one_more_endpoint_is_refused() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, app_version=Limits(endpoints=2))
        device = speaker(worker, "one", "two")
        speaker(worker, "two")
        assert refusals(worker) == {}
        device.publish(topic("three"), b"1")
        worker.identify()
        assert refusals(worker) == {"app_version_endpoints": 1}
        assert counts(worker, "appVersion") == (2, 2)
        set_quotas(worker, app_version=Limits(endpoints=3))
        device.publish(topic("three"), b"1")
        worker.identify()
        assert refusals(worker) == {"app_version_endpoints": 1}
        assert counts(worker, "appVersion") == (2, 3)


def test_those_of_other_workers_count_as_well() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, tenant=Limits(connections=10, endpoints=10), app_version=Limits(connections=10))
        usage(worker, "tenant").population.set_elsewhere(9, 0)
        speaker(worker, "one")
        speaker(worker, "two")
        assert refusals(worker) == {"tenant_connections": 1}
        usage(worker, "tenant").population.set_elsewhere(0, 9)
        speaker(worker, "three")
        assert refusals(worker) == {"tenant_connections": 1, "tenant_endpoints": 1}
        usage(worker, "appVersion").population.set_elsewhere(9, 0)
        usage(worker, "tenant").population.set_elsewhere(0, 0)
        speaker(worker, "four")
        assert refusals(worker) == {
            "tenant_connections": 1,
            "tenant_endpoints": 1,
            "app_version_connections": 1,
        }


def test_a_month_is_over_when_its_messages_have_passed() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, tenant=Limits(messages_per_month=3), app_version=NONE)
        device = speaker(worker, "one")
        for _ in range(4):
            device.publish(topic("one"), b"1")
        assert refusals(worker) == {"tenant_month": 2}
        quota = usage(worker, "tenant").quota
        assert quota is not None
        assert quota.left_of_month() == 0
        # Others have sent some of them, or a new month has begun.
        quota.set_month(2, 1000.0)
        device.publish(topic("one"), b"1")
        device.publish(topic("one"), b"1")
        assert refusals(worker) == {"tenant_month": 3}
        # A higher limit holds at once.
        set_quotas(worker, tenant=Limits(messages_per_month=4), app_version=NONE)
        device.publish(topic("one"), b"1")
        assert refusals(worker) == {"tenant_month": 3}


def test_an_application_version_that_goes_to_another_tenant_leaves_no_count_behind() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker)
        device = speaker(worker, "one")
        worker.router.set_quotas({TENANT: MANY, "other": MANY}, {APP: MANY}, {}, {APP: "other"})
        device.drop()
        populations = {each.name: each.population for each in worker.sessions.quotas.limited()}
        assert {name: (each.connections, each.endpoints) for name, each in populations.items()} == {
            TENANT: (0, 0),
            "other": (0, 0),
            APP: (0, 0),
        }


def test_connections_of_an_endpoint() -> None:
    """Those that are there go on; a client that is away is none; another application version has its own limit."""
    with WorkerDouble() as worker:

        def limit(connections: int) -> None:
            endpoints = {APP: Limits(connections=connections)}
            worker.router.set_quotas({}, {}, endpoints, {APP: TENANT, OTHER_APP: TENANT})

        limit(2)
        first = speaker(worker, "one", client_id="first")
        second = speaker(worker, "one")
        for number in range(1, 4):
            third = speaker(worker, "one")
            assert refusals(worker) == {"endpoint_connections": number}
            third.leave()
        speaker(worker, "two")
        second.publish(topic("one"), b"2")
        assert refusals(worker) == {"endpoint_connections": 3}, "it was there before"
        first.leave()
        fourth = speaker(worker, "one")
        assert refusals(worker) == {"endpoint_connections": 3}, "the session of the first is no connection"
        limit(1)
        for device in (second, fourth):
            device.publish(topic("one"), b"3")
        assert refusals(worker) == {"endpoint_connections": 3}
        limit(0)
        speaker(worker, "one")
        assert refusals(worker) == {"endpoint_connections": 3}
