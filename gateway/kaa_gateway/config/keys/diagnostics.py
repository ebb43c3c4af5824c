"""The keys of `kaa.kpc.tracing` and `kaa.kpc.log`."""

from typing import Annotated, Literal

from msgspec import Meta

from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Boolean, CollectorUrl, OptionalLevelName, Ratio


class Tracing(Section, frozen=True, kw_only=True):
    """Spans of some messages, for OpenTelemetry; needs the extra `tracing`."""

    enabled: Annotated[
        Boolean, Meta(description="Whether some messages are traced; needs the extra `tracing`.")
    ] = False
    sample_ratio: Annotated[
        Ratio, Meta(description="Which part of the messages is traced: 0.001 is one in a thousand, by lot.")
    ] = 0.001
    endpoint: Annotated[
        CollectorUrl,
        Meta(
            description="Where the collector takes OTLP over HTTP, without `/v1/traces`; none: "
            "`OTEL_EXPORTER_OTLP_ENDPOINT`, else http://localhost:4318.",
        ),
    ] = None
    service_name: Annotated[
        OptionalLevelName,
        Meta(
            description="`service.name` of the spans; none: `OTEL_SERVICE_NAME`, else `service.instance.name`."
        ),
    ] = None


class Log(Section, frozen=True, kw_only=True):
    """The log, which goes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe level that is logged.")
    ] = "info"
    format: Annotated[
        Literal["json", "console"], Meta(description="`json`: one object a line; `console`: for people.")
    ] = "json"
