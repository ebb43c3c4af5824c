"""epmx, endpoint metadata: 10/EPMP to devices, 15/EME events of changes, 19/EPMMP with other services.

epmx keeps the metadata itself, and is then a repository of 19/EPMMP for other services. Or it asks another repository,
such as Kaa's endpoint register; that one publishes the events then.

`service` speaks to devices, `metadata` is a change of metadata and its limits, `store` keeps the metadata,
`remote_store` asks another repository, `repository` answers the requests of other services, `registrations` keeps the
application versions of endpoints.

Source: 10/EPMP "Endpoint Metadata Protocol", 15/EME "Endpoint Metadata Events", 19/EPMMP "Endpoint Metadata Management
Protocol".
"""

from kaa_ext.services.epmx.metadata import (
    KEYS_MAX,
    SIZE_MAX,
    Change,
    Metadata,
    checked_keys,
    compacted,
)
from kaa_ext.services.epmx.remote_store import Ask, RemoteStore
from kaa_ext.services.epmx.service import Access, Settings, register
from kaa_ext.services.epmx.store import STATE, Order, OwnStore, Store, Wanted

__all__ = [
    "KEYS_MAX",
    "SIZE_MAX",
    "STATE",
    "Access",
    "Ask",
    "Change",
    "Metadata",
    "Order",
    "OwnStore",
    "RemoteStore",
    "Settings",
    "Store",
    "Wanted",
    "checked_keys",
    "compacted",
    "register",
]
