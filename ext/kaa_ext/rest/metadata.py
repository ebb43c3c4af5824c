"""The routes of endpoint metadata."""

from typing import Annotated, Any

from litestar import Controller, Request, delete, get, patch
from litestar.di import NamedDependency
from litestar.params import PathParameter

from kaa_ext.operations import metadata
from kaa_ext.rest.parameters import METADATA_KEY, PREFIX, AppVersion, Endpoint, MetadataBody, json_body
from kaa_ext.rest.problems import about, responses
from kaa_ext.rest.services import Services
from kaa_ext.services import epmx

Key = Annotated[str, PathParameter(pattern=METADATA_KEY, description="Name of a key.")]


class MetadataController(Controller):
    """The routes of metadata."""

    path = PREFIX
    tags = ("metadata",)

    @get(
        "/endpoints/{endpoint:str}/metadata",
        operation_id="getMetadata",
        summary="Show the metadata of an endpoint",
        response_description="The metadata, an empty object if there are none.",
        responses=responses(),
    )
    async def get_metadata(self, services: NamedDependency[Services], endpoint: Endpoint) -> dict[str, Any]:
        """Show metadata."""
        return await metadata.get(services.session, services.metadata, endpoint)

    @patch(
        "/endpoints/{endpoint:str}/metadata",
        operation_id="updateMetadata",
        summary="Create or change metadata keys of an endpoint",
        description="The body is an object of keys and values; other keys stay as they are. A key has letters, "
        "digits and underscores.",
        operation_class=MetadataBody,
        response_description="All metadata of the endpoint.",
        responses=responses(413, 415),
    )
    async def update_metadata(
        self,
        request: Request[Any, Any, Any],
        services: NamedDependency[Services],
        endpoint: Endpoint,
        app_version: AppVersion,
    ) -> dict[str, Any]:
        """Create or change metadata keys."""
        content = await json_body(request)
        with about("body", ""):
            update = metadata.decode(content)
        for key in update:
            with about("body", key):
                epmx.checked_keys([key])
        with about("body", ""):
            return await metadata.update(services.session, services.metadata, app_version, endpoint, update)

    @delete(
        "/endpoints/{endpoint:str}/metadata/{key:str}",
        operation_id="deleteMetadataKey",
        summary="Delete a metadata key of an endpoint",
        description="A missing key is not an error.",
        response_description="The key is gone.",
        responses=responses(),
    )
    async def delete_metadata_key(
        self, services: NamedDependency[Services], endpoint: Endpoint, key: Key, app_version: AppVersion
    ) -> None:
        """Delete a metadata key."""
        await metadata.delete(services.session, services.metadata, app_version, endpoint, [key])
