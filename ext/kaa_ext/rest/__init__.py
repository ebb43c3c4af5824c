"""The REST API of the reference services: commands, configurations, metadata, data samples, endpoint tokens.

`app` puts it together on Litestar: one module has the routes of one subject, with the operations of
`kaa_ext.operations` behind them. `access` says who may use it, `problems` how errors are told, `connection` keeps NATS,
`server` has the port. Needs the extra `rest`.
"""
