"""`python -m gateway` is `kaa-gateway`."""

from gateway.cli import main

main()
