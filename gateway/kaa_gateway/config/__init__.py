"""Configuration of the gateway: service-config.yml and the environment as one typed, checked structure.

keys            the keys of the file: names, types, bounds, defaults, descriptions
value_types     the types of values, and how each is written
schema          what a section is, and how to walk the keys
yaml_tree       YAML as text with line numbers
values          text to typed values
file_reader     the keys of a file
sources         file and environment, combined
cross_checks    what several keys must agree on
model           the structure that the gateway works with
loading         from a path to that structure
manifests       the configuration of KPC in a file or in manifests of Kubernetes
migration       what would change for a configuration of KPC
listeners       which listeners a configuration has
problems        what an operator is told
reference       the table of all keys in docs/configuration.md
"""

from kaa_gateway.config.listeners import encrypted
from kaa_gateway.config.loading import check, config_path, load
from kaa_gateway.config.migration import dry_run
from kaa_gateway.config.model import AppVersion, Config, ExtensionInstance
from kaa_gateway.config.problems import Problem
from kaa_gateway.config.value_types import masked

__all__ = [
    "AppVersion",
    "Config",
    "ExtensionInstance",
    "Problem",
    "check",
    "config_path",
    "dry_run",
    "encrypted",
    "load",
    "masked",
]
