"""The traffic reports of a worker, as the configuration wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.app.routing import owners_of
from kaa_gateway.lifecycle.traffic import TrafficReports

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.config import Config
    from kaa_gateway.kp.endpoints import Endpoints


def make_traffic_reports(
    config: Config, control: Control, replica_id: str, endpoints: Endpoints
) -> TrafficReports | None:
    """Return the traffic reports of a worker; None if none are to be made."""
    period = config.events.traffic_period
    if period == 0:
        return None
    return TrafficReports(
        control, endpoints, config.service.instance.name, replica_id, owners_of(config), period
    )
