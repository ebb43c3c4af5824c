"""Builds the gateway's HTTP server on a worker double, as the composition root does it on a worker."""

from kaa_gateway.config.keys import Http
from kaa_gateway.http.parser import RequestLimits
from kaa_gateway.http.server import HttpServer
from kaa_gateway.kp.pending import PendingRequests

from tests.unit.kp.worker_double import WorkerDouble


def http_server(worker: WorkerDouble, pending: PendingRequests, settings: Http) -> HttpServer:
    """Return an HTTP server whose connections publish through `worker`."""
    return HttpServer(
        worker.loop,  # type: ignore[arg-type]
        worker.uplink,
        worker.sessions,
        pending,
        worker.counters,
        worker,
        RequestLimits(settings.max_body_size, settings.max_header_size, settings.max_url_length),
        client_authentication=settings.client_authentication,
        path_prefix=settings.path_prefix,
        allowed_origins=settings.allowed_origins,
        read_timeout=settings.read_timeout,
        keep_alive_timeout=settings.keep_alive_timeout,
        pipelined_requests=settings.pipelined_requests,
        max_wait=settings.max_wait,
    )
