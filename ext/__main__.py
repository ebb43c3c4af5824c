"""`python -m ext` is `kaa-ext`."""

from ext.cli import main

main()
