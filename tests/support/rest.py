"""`kaa-ext rest` in a process of its own, and a client of it that knows the OpenAPI document only."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote

import httpx
import jsonschema

from tests.support.extensions import LINE_TIMEOUT_S, python
from tests.support.nats import HOST, free_port

TIMEOUT_S = 90.0


@asynccontextmanager
async def serving(nats_url: str, *options: str) -> AsyncIterator[tuple[str, Process]]:
    """Yield the URL of `kaa-ext rest` when it is ready, and its process."""
    port = free_port()
    async with python(
        "-P", "-m", "kaa_ext", "rest", "--port", str(port), *options, nats_url=nats_url
    ) as rest:
        assert rest.stdout is not None
        line = await asyncio.wait_for(rest.stdout.readline(), LINE_TIMEOUT_S)
        if line != b"ready\n":
            _, errors = await rest.communicate()
            raise AssertionError(errors.decode())
        yield f"http://{HOST}:{port}", rest


class Api:
    """Calls operations by their operationId, and checks that every response is as the document says."""

    def __init__(self, client: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self.client = client
        self.document = document
        self._operations = {
            operation["operationId"]: (method, path, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
        }

    @classmethod
    async def read(cls, client: httpx.AsyncClient) -> Self:
        """Return the API that the server describes."""
        answer = await client.get("/openapi.json")
        assert answer.status_code == 200, answer.text
        return cls(client, answer.json())

    @property
    def operations(self) -> set[str]:
        """The names of the operations."""
        return set(self._operations)

    async def call(self, name: str, body: Any = None, /, **parameters: Any) -> httpx.Response:
        """Call an operation. `from_` stands for the parameter `from`."""
        method, path, operation = self._operations[name]
        places = {each["name"]: each["in"] for each in operation.get("parameters", [])}
        query = {}
        for key, value in parameters.items():
            parameter = key.rstrip("_")
            if places[parameter] == "path":
                path = path.replace(f"{{{parameter}}}", quote(str(value), safe=""))
            else:
                query[parameter] = value
        assert "{" not in path, path
        content = {} if body is None else {"json": body}
        answer = await self.client.request(method, path, params=query, timeout=TIMEOUT_S, **content)
        self._check(operation, answer)
        return answer

    async def ok(self, name: str, body: Any = None, /, **parameters: Any) -> Any:
        """The JSON of the answer to a call that must go well."""
        answer = await self.call(name, body, **parameters)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def _check(self, operation: dict[str, Any], answer: httpx.Response) -> None:
        described = operation["responses"][str(answer.status_code)]
        content = described.get("content")
        if answer.status_code == 204:
            assert not answer.content
            return
        media_type = answer.headers["Content-Type"].partition(";")[0]
        schema = {**content[media_type]["schema"], "components": self.document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer.json())
