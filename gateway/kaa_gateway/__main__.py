"""`python -m kaa_gateway` is `kaa-gateway`."""

from kaa_gateway.cli import main

main()
