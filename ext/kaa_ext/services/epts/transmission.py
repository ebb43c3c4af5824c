"""Transmits the data points of samples to receivers of time series, and waits for their acknowledgements.

The answers of 14/TSTP do not name the receiver, so they are counted: an event is acknowledged when enough receivers
have answered with success, and has failed when one has answered with an error.

Source: 14/TSTP "Time Series Transmission Protocol", transmitter.
"""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from nats.aio.msg import Msg

from kaa_ext.messages import tstp
from kaa_ext.sdk.errors import NotDelivered, PayloadTooLarge
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.targeted import is_no_responders
from kaa_ext.services.epts.extraction import Extraction
from kaa_ext.services.local_receivers import Outcome, Samples

SENT = Outcome(200)
TOO_LARGE = Outcome(413, "The data points do not fit into a message")
NOT_SENT = Outcome(503, "NATS does not take data points")
NO_RECEIVER = Outcome(503, "No receiver of the time series is running")
NOT_ACKNOWLEDGED = Outcome(504, "The time series was not acknowledged in time")
SUBJECT_HEADER = "Nats-Subject"
"""The header in which NATS names the subject that has no subscriber."""


class _Waiting:
    """An event that waits for acknowledgements."""

    __slots__ = ("missing", "outcome", "subject")

    def __init__(self, subject: str, acknowledgements: int) -> None:
        self.subject = subject
        self.missing = acknowledgements
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def end(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Transmission:
    """Transmits for an epts instance. Each event must be acknowledged by `acknowledgements` receivers (0: none)."""

    def __init__(
        self, extension: Extension, extraction: Extraction, acknowledgements: int, timeout_s: float
    ) -> None:
        self._extension = extension
        self._extraction = extraction
        self._acknowledgements = acknowledgements
        self._timeout_s = timeout_s
        self._waiting: dict[str, _Waiting] = {}
        self._reply = tstp.reply_subject(extension.replica_id) if acknowledgements else ""
        if acknowledgements:
            extension.subscribe(self._reply, self._receive, answers=True)

    async def transmit(self, batch: Sequence[Samples], arrived: int) -> list[Outcome]:
        """Transmit the data points of samples. Return the outcome of each.

        The events go over the connection that has the reply subject: only there NATS reports that nobody receives them.
        """
        outcomes: list[Outcome] = [SENT] * len(batch)
        waiting: list[tuple[int, str, _Waiting]] = []
        for place, samples in enumerate(batch):
            for name, points in self._extraction.points(samples.samples, arrived).items():
                event_id = str(uuid4())
                subject = tstp.event_subject(self._extension.name, name)
                event = tstp.TIME_SERIES_EVENT.encode(
                    correlation_id=event_id,
                    appVersionName=samples.app_version_name,
                    endpointId=samples.endpoint_id,
                    timeSeriesName=name,
                    dataPoints=[
                        {
                            "ingestionTimestamp": point.ingestion_timestamp,
                            "timestamp": point.timestamp,
                            "values": point.values,
                        }
                        for point in points
                    ],
                )
                if self._reply:
                    self._waiting[event_id] = _Waiting(subject, self._acknowledgements)
                    waiting.append((place, event_id, self._waiting[event_id]))
                try:
                    await self._extension.publish(subject, event, self._reply)
                except NotDelivered as error:
                    outcomes[place] = TOO_LARGE if isinstance(error, PayloadTooLarge) else NOT_SENT
                    if self._reply:
                        waiting[-1][2].end(outcomes[place])
        if waiting:
            try:
                await asyncio.wait([each.outcome for _, _, each in waiting], timeout=self._timeout_s)
            finally:
                for place, event_id, each in waiting:
                    del self._waiting[event_id]
                    outcome = each.outcome.result() if each.outcome.done() else NOT_ACKNOWLEDGED
                    if not 200 <= outcome.status_code <= 299:
                        outcomes[place] = outcome
        return outcomes

    def _receive(self, message: Msg) -> None:
        """Handle the answer of a receiver, or the report of NATS that there is none."""
        if is_no_responders(message):
            subject = (message.headers or {}).get(SUBJECT_HEADER)
            for each in self._waiting.values():
                if each.subject == subject:
                    each.end(NO_RECEIVER)
            return
        fields = tstp.TIME_SERIES_PROCESSED.decode(message.data)
        waiting = self._waiting.get(fields["correlationId"])
        if waiting is None:
            return
        outcome = Outcome(fields["statusCode"], fields["reasonPhrase"])
        if not 200 <= outcome.status_code <= 299:
            waiting.end(outcome)
            return
        waiting.missing -= 1
        if waiting.missing == 0:
            waiting.end(outcome)
