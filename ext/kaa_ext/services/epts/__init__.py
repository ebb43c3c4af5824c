"""epts, endpoint time series: 13/DSTP from transmitters of data samples, 14/TSTP to receivers of time series.

Data samples are kept in a JetStream stream. If it is configured so, the time series in them are transmitted to other
services. A batch is confirmed when the stream has stored it and receivers have acknowledged its data points.
Transmitters in the same process hand their samples over directly (see local_receivers.py). Samples are read from the
stream; no replica of epts need run for that.

`samples` is the stream, `extraction` finds the time series in samples, `definitions` says which there are,
`transmission` sends them, `service` connects these.

Source: 13/DSTP "Data Sample Transmission Protocol", receiver; 14/TSTP "Time Series Transmission Protocol", transmitter.
"""

from kaa_ext.services.epts.definitions import KEY, STATE, Definitions
from kaa_ext.services.epts.extraction import Extraction, Series
from kaa_ext.services.epts.samples import ANY, Batch, stream_name, stream_subject
from kaa_ext.services.epts.service import Settings, register

__all__ = [
    "ANY",
    "KEY",
    "STATE",
    "Batch",
    "Definitions",
    "Extraction",
    "Series",
    "Settings",
    "register",
    "stream_name",
    "stream_subject",
]
