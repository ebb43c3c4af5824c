"""What people and programs do with the reference services: the operations behind `kaa-ext` and the REST API.

Each module has the operations of one service. They work on a `Session` with NATS, return data, and know neither a
command line nor HTTP. They raise `Unavailable` if a service or NATS cannot do it, and ExtensionError for a request that
is wrong.
"""
