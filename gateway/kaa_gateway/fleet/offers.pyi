"""The sessions of a worker that stops. See offers.pyx."""

from collections.abc import Callable, Iterable

from kaa_gateway.fleet.directory import SessionDirectory
from kaa_gateway.fleet.messages import Offer

async def give_away(
    directory: SessionDirectory, find_offers: Callable[[], Iterable[Offer]], deadline: float
) -> None: ...
