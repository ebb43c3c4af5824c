"""`python -m gateway` is `kaa-gateway`."""

from kaa_gateway.cli import main

main()
