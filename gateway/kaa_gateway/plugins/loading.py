"""Finding the class of a protocol, and reading its options from the configuration.

A class is named by an entry point of the group `kaa_gateway.protocols`, or as `module:Class`. What is wrong with it is
found here, before anything listens.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from kaa_gateway.errors import ConfigError
from kaa_gateway.plugins.protocol import DeviceProtocol
from kaa_gateway.plugins.server import REASON, REASONS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GROUP = "kaa_gateway.protocols"
"""The group of entry points that name protocols."""
_TRUTH = {"true": True, "false": False}


def load_protocol(key: str, name: str) -> type[DeviceProtocol]:
    """Return the class that a name stands for. Raises ConfigError, whose detail begins with `key`."""
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        else:
            points = entry_points(group=GROUP, name=name)
            if not points:
                known = ", ".join(sorted(each.name for each in entry_points(group=GROUP))) or "none"
                raise ConfigError(
                    "config_invalid", f"{key}: no protocol {name!r} is installed; there is: {known}"
                )
            found = next(iter(points)).load()
    except ConfigError:
        raise
    except Exception as error:
        # Its module may raise anything while it is imported.
        raise ConfigError(
            "config_invalid", f"{key}: {name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, DeviceProtocol)):
        raise ConfigError("config_invalid", f"{key}: {name} is not a subclass of DeviceProtocol")
    wrong = [reason for reason in found.reasons if not REASON.fullmatch(reason)]
    if wrong or len(found.reasons) > REASONS_MAX:
        raise ConfigError(
            "config_invalid",
            f"{key}: the reasons of {name} must be {REASONS_MAX} names in snake_case at most",
        )
    return found


def read_options(key: str, protocol: type[DeviceProtocol], given: Sequence[str]) -> Mapping[str, Any]:
    """Return all options of a protocol, with those that are given as `name=value`. Raises ConfigError."""
    options: dict[str, Any] = dict(protocol.options_with_defaults)
    for each in given:
        name, _, text = each.partition("=")
        if name not in options:
            known = ", ".join(sorted(options)) or "none"
            raise ConfigError("config_invalid", f"{key}: {name} is not an option; there is: {known}")
        kind = type(protocol.options_with_defaults[name])
        try:
            options[name] = _TRUTH[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            expected = "true or false" if kind is bool else f"a value of type {kind.__name__}"
            raise ConfigError("config_invalid", f"{key}: {name}: expected {expected}, got {text!r}") from None
    return options
