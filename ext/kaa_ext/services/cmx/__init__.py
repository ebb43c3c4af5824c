"""cmx, configuration management: 7/CMP to devices, 6/CDTP to the provider of their configurations.

New configurations are pushed to endpoints, unless these said `"observe": false`. An endpoint that was away gets what it
has not applied when it connects. A connection gets a configuration once.

`service` speaks to devices and to the provider, `provider` asks for configurations and keeps them,
`endpoints` is what is stored about endpoints.

Source: 7/CMP "Configuration Management Protocol", 6/CDTP, 9/ELCE.
"""

from kaa_ext.services.cmx.endpoints import NAMES_MAX, STATE, Configured, EndpointState
from kaa_ext.services.cmx.service import Settings, register

__all__ = ["NAMES_MAX", "STATE", "Configured", "EndpointState", "Settings", "register"]
