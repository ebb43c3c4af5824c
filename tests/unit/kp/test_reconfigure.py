"""Another configuration in the native parts: which routes and sessions go, and which stay as they are."""

from kaa_bench.mqtt_packets import Publish

from tests.unit.kp.worker_double import APP, NAMED, OTHER_APP, TENANT, WorkerDouble

ALLOWED = {APP: frozenset({"dcx", "cmx", "tsx"}), OTHER_APP: frozenset({"dcx"})}
AWARE = {"dcx": True, "cmx": True, "tsx": False}


def configure(
    worker: WorkerDouble,
    allowed: dict[str, frozenset[str]] = ALLOWED,
    aware: dict[str, bool] = AWARE,
    tenants: dict[str, str] | None = None,
    named: frozenset[str] = NAMED,
) -> int:
    """Sessions that it ends."""
    gone = worker.router.configure(allowed, aware, tenants or {APP: TENANT}, named)
    worker.in_slices(worker.router.sweep())
    return worker.in_slices(worker.revocation.withdraw(gone, "not_configured"))


def test_what_is_still_allowed_goes_on() -> None:
    with WorkerDouble() as worker:
        device = worker.device()
        device.publish(f"kp1/{APP}/dcx/one/json", b"1")
        worker.identify()
        assert configure(worker, ALLOWED | {"app_v3": frozenset({"tsx"})}) == 0
        assert worker.router.route_count() == 1
        device.publish(f"kp1/{APP}/dcx/one/json", b"2")
        device.publish("kp1/app_v3/tsx/time", b"3")
        assert worker.asked == []
        assert [each.data.payload for each in worker.published()] == [b"1", b"2", b"3"]
        assert not device.closed


def test_an_extension_that_is_not_allowed_any_more_is_404() -> None:
    with WorkerDouble() as worker:
        device = worker.device()
        for _ in range(2):
            device.publish(f"kp1/{APP}/dcx/one/json/1", b"1")
            worker.identify()
        assert len(worker.published()) == 2
        assert configure(worker, ALLOWED | {APP: frozenset({"cmx"})}) == 0
        assert worker.router.route_count() == 0
        device.publish(f"kp1/{APP}/dcx/one/json/2", b"2")
        assert worker.published() == []
        (refusal,) = [each for each in device.received() if isinstance(each, Publish)]
        assert refusal.topic == f"kp1/{APP}/dcx/one/json/2/error"
        assert b"404" in refusal.payload
        # The identity of its endpoint is as good as before.
        device.publish(f"kp1/{APP}/cmx/one/json", b"3")
        assert [each.data.endpoint_id for each in worker.published()] == ["endpoint-one"]
        assert not device.closed


def test_a_version_that_is_no_more_ends_those_who_speak_for_nothing_else() -> None:
    with WorkerDouble() as worker:
        gone, both = worker.device(), worker.device()
        gone.publish(f"kp1/{OTHER_APP}/dcx/one/json", b"")
        both.publish(f"kp1/{OTHER_APP}/dcx/two/json", b"")
        both.publish(f"kp1/{APP}/dcx/three/json", b"")
        idle = worker.device()
        worker.identify()
        worker.published()
        assert worker.presence.endpoints == {"endpoint-one", "endpoint-two", "endpoint-three"}
        assert configure(worker, {APP: ALLOWED[APP]}) == 1
        assert worker.presence.endpoints == {"endpoint-three"}
        assert gone.closed
        assert not both.closed
        assert not idle.closed
        both.publish(f"kp1/{OTHER_APP}/dcx/two/json", b"")
        both.publish(f"kp1/{APP}/dcx/three/json", b"")
        assert [each.data.endpoint_id for each in worker.published()] == ["endpoint-three"]


def test_an_identity_that_comes_too_late_is_refused() -> None:
    with WorkerDouble() as worker:
        device = worker.device()
        device.publish(f"kp1/{OTHER_APP}/dcx/one/json", b"")
        configure(worker, {APP: ALLOWED[APP]})
        worker.identify()
        assert worker.published() == []
        assert worker.presence.endpoints == set()
        assert len(worker.sessions.endpoints) == 0
        assert worker.reason("refused", "no_route") == 1


def test_an_extension_that_becomes_endpoint_aware_has_other_paths() -> None:
    with WorkerDouble() as worker:
        device = worker.device()
        device.publish(f"kp1/{APP}/tsx/one/time", b"")
        (before,) = worker.published()
        assert (before.data.endpoint_id, before.data.resource_path) == (None, "/one/time")
        configure(worker, aware=AWARE | {"tsx": True})
        device.publish(f"kp1/{APP}/tsx/one/time", b"")
        worker.identify()
        (after,) = worker.published()
        assert (after.data.endpoint_id, after.data.resource_path) == ("endpoint-one", "/time")


def test_a_version_that_changes_its_tenant_is_another() -> None:
    with WorkerDouble() as worker:
        device = worker.device()
        device.publish(f"kp1/{OTHER_APP}/dcx/one/json", b"")
        worker.identify()
        assert configure(worker, tenants={APP: TENANT, OTHER_APP: "other"}) == 1
        assert device.closed


def test_bounds_hold_for_what_comes_after() -> None:
    with WorkerDouble() as worker:
        device = worker.device()
        for number in range(10):
            device.publish(f"kp1/{APP}/dcx/{number}/json", b"")
        worker.identify()
        assert len(worker.published()) == 10
        worker.sessions.set_limit(5)
        worker.router.set_limits(4, 30)
        for number in range(10, 12):
            device.publish(f"kp1/{APP}/dcx/{number}/json", b"")
        worker.identify()
        assert worker.published() == []
        assert worker.reason("refused", "too_many_endpoints") == 2
        device.publish(f"kp1/{APP}/dcx/1/" + 30 * "x", b"")
        assert worker.reason("refused", "no_route") == 1
        assert not device.closed
        device.publish(f"kp1/{APP}/dcx/3/json", b"")
        assert len(worker.published()) == 1


def test_an_extension_that_gets_the_names_of_configurations_or_no_more() -> None:
    with WorkerDouble() as worker:
        device = worker.device()
        names: list[str | None] = []
        for named in (NAMED, frozenset[str](), NAMED):
            assert configure(worker, named=named) == 0
            device.publish(f"kp1/{APP}/cmx/one/config/json/network", b"")
            worker.identify()
            names += [each.data.config_name for each in worker.published()]
        assert names == ["network", None, "network"]
        assert not device.closed
