"""Reads a configuration of KPC from where it stands: a service-config.yml, or manifests of a Kubernetes cluster.

A ConfigMap holds the file, and a workload (Deployment, StatefulSet, ...) the environment variables of its containers.
`kubectl get configmap,deployment kpc -o yaml` prints both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kaa_gateway.errors import ConfigError

FILE_NAME = "service-config.yml"
SUFFIXES = (".yml", ".yaml")


class Manifest(NamedTuple):
    """A configuration of KPC."""

    name: str
    """What messages call the file."""
    text: str
    environ: dict[str, str]
    """The environment variables that are set to a text, by name."""
    referred: tuple[str, ...]
    """Environment variables whose values stand elsewhere, such as in a Secret."""


def read_manifest(path: Path) -> Manifest:
    """Read a file. Raise ConfigError if there is no configuration in it, or more than one."""
    try:
        text = path.read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except OSError as error:
        raise ConfigError("config_invalid", f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError("config_invalid", f"{path}: not YAML: {' '.join(str(error).split())}") from error
    objects = [each for document in documents for each in _objects(document)]
    if not objects:
        return Manifest(str(path), text, {}, ())
    files = [
        (f"{path} ({name})", content)
        for each in objects
        if each["kind"] == "ConfigMap"
        for name, content in sorted(_mapping(each.get("data")).items())
        if isinstance(content, str) and str(name).endswith(SUFFIXES)
    ]
    named = [each for each in files if each[0].endswith(f"({FILE_NAME})")] or files
    if len(named) != 1:
        found = ", ".join(name for name, _ in named) or "none"
        raise ConfigError(
            "config_invalid", f"{path}: expected one {FILE_NAME} in its ConfigMaps, found {found}"
        )
    environ: dict[str, str] = {}
    referred: list[str] = []
    for variable in (variable for each in objects for variable in _variables(each)):
        if isinstance(variable.get("value"), str):
            environ[str(variable["name"])] = variable["value"]
        elif "valueFrom" in variable:
            referred.append(str(variable["name"]))
    return Manifest(*named[0], environ, tuple(sorted(referred)))


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of Kubernetes in a document, those of a list one by one."""
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        return
    if isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _objects(item)
    else:
        yield document


def _variables(workload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the environment variables of a workload's containers."""
    template = _mapping(_mapping(workload.get("spec")).get("template"))
    containers = _mapping(template.get("spec")).get("containers")
    for container in containers if isinstance(containers, list) else ():
        variables = _mapping(container).get("env")
        for variable in variables if isinstance(variables, list) else ():
            if isinstance(variable, dict) and "name" in variable:
                yield variable


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
