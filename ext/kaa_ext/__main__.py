"""`python -m kaa_ext` is `kaa-ext`."""

from kaa_ext.cli.main import main

main()
