"""echo: answers each request with its payload, for tests and benchmarks.

On the resource path `/status/<code>` the answer has that HTTP status, 200 to 599.
"""

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request, Response


def register(extension: Extension) -> None:
    """Make the extension an echo service."""

    @extension.handler("*")
    def echo(request: Request) -> bytes:
        return request.payload

    @extension.handler("/status/{code}")
    def echo_with_status(request: Request) -> Response:
        code = request.parameters["code"]
        if not (code.isascii() and code.isdigit() and len(code) == 3 and 200 <= int(code) <= 599):
            raise ExtensionError(400, "Expected a status code, 200 to 599")
        return Response(int(code), request.payload)
