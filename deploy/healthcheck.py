"""The image's health check: whether the management API says that the process is alive. Needs nothing but Python.

The port is that of `server.port` in its environment variable, or its default; a configuration file that changes it
needs SERVER_PORT as well.
"""

import http.client
import os
import sys

TIMEOUT = 4
"""Seconds; less than the health check's own."""

connection = http.client.HTTPConnection(
    "127.0.0.1", int(os.environ.get("SERVER_PORT", "8008")), timeout=TIMEOUT
)
try:
    connection.request("GET", "/health/live")
    sys.exit(0 if connection.getresponse().status == http.HTTPStatus.OK else 1)
except OSError as error:
    sys.exit(f"the management API does not answer: {error}")
