"""The months of endpoints: what passes, which shards are to be counted, and what is forgotten."""

from collections.abc import Iterator

import pytest
from kaa_gateway.kp.endpoint_months import EndpointMonths
from kaa_gateway.kp.quota import Quota

from tests.unit.kp.device_double import Device
from tests.unit.kp.test_quotas import Limits, device_that_sent, passed, refusals, set_quotas
from tests.unit.kp.worker_double import APP, OTHER_APP, WorkerDouble

TOPIC = f"kp1/{APP}/dcx/one/json"
ENDPOINT = "endpoint-one"
MONTH_S = 1000.0


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as worker:
        yield worker


def months_of(worker: WorkerDouble) -> EndpointMonths:
    (months,) = worker.sessions.quotas.months_of_endpoints().values()
    return months


def looks(months: EndpointMonths) -> set[str]:
    """What must be done with shards, but for those with nothing to do."""
    return {str(months.look(number)) for number in range(months.shard_count)} - {"never"}


def quotas_of(months: EndpointMonths) -> dict[str, Quota]:
    return {
        name: quota for number in range(months.shard_count) for name, quota in months.quotas(number).items()
    }


def count(months: EndpointMonths, elsewhere: int = 0) -> None:
    """Do what the counters do: add what has passed, and say what all have sent."""
    for quota in quotas_of(months).values():
        quota.messages_counted = quota.messages_passed
        quota.set_month(elsewhere + quota.messages_passed, MONTH_S)


def go(worker: WorkerDouble, device: Device) -> None:
    """End the connection, and use other paths, so that no route to its endpoint is left."""
    device.drop()
    other = worker.device()
    for number in range(5):
        other.publish(f"kp1/{OTHER_APP}/dcx/{number}/json")
        worker.identify()


def send(device: Device, messages: int) -> None:
    for _ in range(messages):
        device.publish(TOPIC, b"more")


def test_an_endpoint_that_has_sent_its_month_is_refused(worker: WorkerDouble) -> None:
    set_quotas(worker, endpoint=Limits(messages_per_month=3))
    device = device_that_sent(worker, TOPIC, b"first")
    send(device, 4)
    assert len(passed(worker)) == 3
    assert refusals(worker) == {"endpoint_month": 2}
    # Another endpoint has a month of its own.
    device_that_sent(worker, f"kp1/{APP}/dcx/two/json", b"other")
    assert len(passed(worker)) == 1
    # A higher limit holds at once.
    set_quotas(worker, endpoint=Limits(messages_per_month=5))
    send(device, 3)
    assert len(passed(worker)) == 2


def test_what_other_workers_have_counted_is_used_up(worker: WorkerDouble) -> None:
    set_quotas(worker, endpoint=Limits(messages_per_month=10))
    device = device_that_sent(worker, TOPIC, b"first")
    count(months_of(worker), elsewhere=8)
    send(device, 4)
    assert len(passed(worker)) == 2
    # A month later, nothing of that counts.
    months_of(worker).forget_counts()
    assert looks(months_of(worker)) == {"now"}
    for quota in quotas_of(months_of(worker)).values():
        quota.set_month(0, MONTH_S)
    send(device, 1)
    assert len(passed(worker)) == 1


def test_a_shard_is_counted_now_soon_or_never(worker: WorkerDouble) -> None:
    set_quotas(worker, endpoint=Limits(messages_per_month=1000))
    device = device_that_sent(worker, TOPIC, b"first")
    months = months_of(worker)
    assert looks(months) == {"now"}  # the count of a new endpoint is not known
    count(months)
    assert looks(months) == set()
    send(device, 9)
    assert looks(months) == {"soon"}
    send(device, 1)
    assert looks(months) == {"now"}  # a hundredth of its month
    count(months, elsewhere=989)
    assert looks(months) == {"soon"}  # it is used up, and might be set back


def test_an_endpoint_is_forgotten_when_it_is_gone_and_counted() -> None:
    with WorkerDouble(route_cache=2) as worker:
        set_quotas(worker, endpoint=Limits(messages_per_month=1000))
        device = device_that_sent(worker, TOPIC, b"first")
        months = months_of(worker)
        count(months)
        assert looks(months) == set()
        send(device, 2)
        go(worker, device)
        assert looks(months) == {"soon"}
        # It comes back before it is counted, and goes on.
        device = device_that_sent(worker, TOPIC, b"again")
        assert quotas_of(months)[ENDPOINT].messages_passed == 4
        count(months)
        assert looks(months) == set()
        assert list(quotas_of(months)) == [ENDPOINT]
        go(worker, device)
        assert looks(months) == set()
        assert quotas_of(months) == {}


def test_months_come_and_go_with_the_configuration(worker: WorkerDouble) -> None:
    set_quotas(worker, endpoint=Limits(messages_per_second=1000))
    device = device_that_sent(worker, TOPIC, b"first")
    assert worker.sessions.quotas.months_of_endpoints() == {}
    set_quotas(worker, endpoint=Limits(messages_per_second=1000, messages_per_month=2))
    send(device, 3)
    assert refusals(worker) == {"endpoint_month": 1}
    set_quotas(worker, endpoint=Limits(messages_per_second=1000))
    assert worker.sessions.quotas.months_of_endpoints() == {}
    send(device, 3)
    assert refusals(worker) == {"endpoint_month": 1}
