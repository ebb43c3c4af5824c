"""The time series that epts finds in samples, by their names: which there are, and their data points.

epts stores samples, not data points. Data points are found in stored samples when they are asked for, by the settings
of epts at this time. They are selected by their time of arrival.
"""

from collections.abc import Callable

from kaa_ext.operations.errors import Unavailable
from kaa_ext.operations.samples import Sample
from kaa_ext.operations.session import Session
from kaa_ext.sdk.time_series import DataPoint
from kaa_ext.services import epts


async def definitions(session: Session, receiver: str) -> epts.Definitions:
    """Return the time series of a receiver instance. Raise Unavailable if it has never run."""
    state = await session.state(receiver, epts.STATE, epts.Definitions)
    found = await state.get(epts.KEY)
    if found is None:
        raise Unavailable(f"{receiver} has not said which time series it has; has it been started?")
    return found


async def finder(session: Session, receiver: str, name: str) -> Callable[[Sample], DataPoint | None] | None:
    """Return a function that finds the data point of a time series in a sample; None if there is no such series."""
    extraction = (await definitions(session, receiver)).extraction(name)
    if extraction is None:
        return None

    def find(sample: Sample) -> DataPoint | None:
        points = extraction.points([sample.content], sample.timestamp).get(name)
        return points[0] if points else None

    return find
