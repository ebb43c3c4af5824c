"""How commands of `kaa-ext` end: exit codes, and an error message of one line."""

import sys
from typing import NoReturn

USAGE_ERROR = 2
FAILED = 1
INTERRUPTED = 130


def fail(message: str, code: int = USAGE_ERROR) -> NoReturn:
    """Print an error message of one line, and exit."""
    print(f"kaa-ext: {message}", file=sys.stderr)
    sys.exit(code)
