"""The quotas of endpoints, application versions and tenants: what passes, what is refused, and how numbers change.

A quota of one byte a second that a large message has used up has no room for hours, however slow the machine is.
"""

from dataclasses import dataclass

import pytest
from kaa_bench.mqtt_packets import Puback, Publish

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, OTHER_APP, TENANT, WorkerDouble

TOPIC = f"kp1/{APP}/dcx/one/json"
OTHER_TOPIC = f"kp1/{OTHER_APP}/dcx/two/json"
LARGE = bytes(10_000)


@dataclass
class Limits:
    """What the configuration says of a quota."""

    messages_per_second: float = 0
    bytes_per_second: float = 0
    messages_per_month: int = 0
    connections: int = 0
    endpoints: int = 0


NONE = Limits()
ONE_BYTE = Limits(bytes_per_second=1)


def set_quotas(
    worker: WorkerDouble, *, tenant: Limits = NONE, app_version: Limits = NONE, endpoint: Limits = NONE
) -> None:
    owners = {APP: TENANT, OTHER_APP: TENANT}
    versions = {APP: app_version, OTHER_APP: NONE}
    worker.router.set_quotas({TENANT: tenant}, versions, {APP: endpoint}, owners)


def device_that_sent(worker: WorkerDouble, topic: str, payload: bytes) -> Device:
    device = worker.device()
    device.publish(topic, payload)
    worker.identify()
    return device


def passed(worker: WorkerDouble) -> list[bytes]:
    return [each.data.payload or b"" for each in worker.published()]


def refusals(worker: WorkerDouble) -> dict[str, int]:
    counted = worker.counters.by_reason().items()
    return {reason: count for (event, reason), count in counted if event == "refused"}


@pytest.mark.parametrize(
    ("quotas", "reason", "phrase"),
    [
        ({"tenant": ONE_BYTE}, "tenant_byte_rate", b"The tenant sends too many bytes"),
        ({"app_version": ONE_BYTE}, "app_version_byte_rate", b"The application version sends too many bytes"),
        ({"endpoint": ONE_BYTE}, "endpoint_byte_rate", b"The endpoint sends too many bytes"),
    ],
)
def test_what_is_over_a_quota_is_refused_with_its_reason(
    quotas: dict[str, Limits], reason: str, phrase: bytes
) -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, **quotas)
        device = device_that_sent(worker, TOPIC, LARGE)
        assert passed(worker) == [LARGE]
        device.publish(f"{TOPIC}/7", b"2", qos=1, packet_id=1)
        worker.confirm()
        assert passed(worker) == []
        assert refusals(worker) == {reason: 1}
        answers = device.received()
        assert [each.packet_id for each in answers if isinstance(each, Puback)] == [1]
        (error,) = [each for each in answers if isinstance(each, Publish)]
        assert error.topic == f"{TOPIC}/7/error"
        assert b'"statusCode":429' in error.payload
        assert phrase in error.payload


@pytest.mark.parametrize("scope", ["tenant", "app_version", "endpoint"])
def test_messages_over_a_quota_are_refused(scope: str) -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, **{scope: Limits(messages_per_second=3)})
        device = device_that_sent(worker, TOPIC, b"first")
        for _ in range(200):
            device.publish(TOPIC, b"more")
        through = passed(worker)
        assert 3 <= len(through) < 200
        assert refusals(worker) == {f"{scope}_message_rate": 201 - len(through)}


def test_a_quota_is_of_all_endpoints_and_one_of_an_endpoint_is_its_own() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, app_version=ONE_BYTE)
        device_that_sent(worker, TOPIC, LARGE)
        device_that_sent(worker, f"kp1/{APP}/dcx/three/json", b"other")
        assert refusals(worker) == {"app_version_byte_rate": 1}
    with WorkerDouble() as worker:
        set_quotas(worker, endpoint=ONE_BYTE)
        device = device_that_sent(worker, TOPIC, LARGE)
        device_that_sent(worker, f"kp1/{APP}/dcx/three/json", b"other")
        assert refusals(worker) == {}
        # Every connection and every path of the endpoint counts for the same quota.
        device_that_sent(worker, f"kp1/{APP}/cmx/one/json", b"same")
        device.publish(TOPIC, b"same")
        assert refusals(worker) == {"endpoint_byte_rate": 2}


def test_a_tenant_has_one_quota_for_all_its_application_versions() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, tenant=ONE_BYTE)
        device_that_sent(worker, TOPIC, LARGE)
        device_that_sent(worker, OTHER_TOPIC, b"other")
        assert refusals(worker) == {"tenant_byte_rate": 1}


def test_what_a_narrower_quota_refuses_does_not_count_for_the_wider_ones() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, tenant=Limits(bytes_per_second=1_000_000), endpoint=ONE_BYTE)
        device = device_that_sent(worker, TOPIC, LARGE)
        for _ in range(10):
            device.publish(TOPIC, LARGE)
        (usage,) = worker.sessions.quotas.limited()
        assert (usage.scope, usage.name) == ("tenant", TENANT)
        assert usage.quota is not None
        assert (usage.quota.messages_passed, usage.quota.bytes_passed) == (1, len(LARGE))
        assert usage.quota.messages_asked == 1


def test_a_worker_lets_its_share_through() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, tenant=Limits(messages_per_second=1_000_000))
        (usage,) = worker.sessions.quotas.limited()
        assert usage.quota is not None
        usage.quota.rates.set_shares(0.000003, 1)
        device = device_that_sent(worker, TOPIC, b"first")
        for _ in range(200):
            device.publish(TOPIC, b"more")
        assert 3 <= len(passed(worker)) < 200
        # Another limit keeps the share.
        set_quotas(worker, tenant=Limits(messages_per_second=2_000_000))
        assert usage.quota.rates.messages == 6


def test_an_extension_without_endpoints_counts_for_the_application_version() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, app_version=ONE_BYTE, endpoint=ONE_BYTE)
        device = worker.device()
        device.publish(f"kp1/{APP}/tsx/time", LARGE)
        device.publish(f"kp1/{APP}/tsx/time", b"2")
        assert passed(worker) == [LARGE]
        assert refusals(worker) == {"app_version_byte_rate": 1}


def test_quotas_change_while_connections_are_open() -> None:
    with WorkerDouble() as worker:
        device = device_that_sent(worker, TOPIC, LARGE)
        device.publish(TOPIC, LARGE)
        assert len(passed(worker)) == 2
        # One that comes holds for routes that are in use ...
        set_quotas(worker, app_version=ONE_BYTE)
        device.publish(TOPIC, LARGE)
        device.publish(TOPIC, b"over")
        assert passed(worker) == [LARGE]
        # ... another one is of a wider scope ...
        set_quotas(worker, tenant=ONE_BYTE)
        device.publish(TOPIC, LARGE)
        device.publish(TOPIC, b"over")
        assert passed(worker) == [LARGE]
        # ... numbers change in place, and what was owed stays owed ...
        set_quotas(worker, tenant=Limits(bytes_per_second=2))
        device.publish(TOPIC, b"over")
        assert passed(worker) == []
        # ... and one that goes limits no more.
        set_quotas(worker)
        device.publish(TOPIC, b"free")
        assert passed(worker) == [b"free"]
        assert worker.asked == []
        assert refusals(worker) == {"app_version_byte_rate": 1, "tenant_byte_rate": 2}


def test_messages_that_waited_for_their_identity_count_when_they_are_forwarded() -> None:
    with WorkerDouble() as worker:
        set_quotas(worker, endpoint=ONE_BYTE)
        device = worker.device()
        for _ in range(3):
            device.publish(TOPIC, LARGE)
        worker.identify()
        assert passed(worker) == [LARGE]
        assert refusals(worker) == {"endpoint_byte_rate": 2}
