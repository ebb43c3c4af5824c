"""One target under libFuzzer: `python -m tests.fuzz.one TARGET [libFuzzer's arguments]`; without one, their names.

`make fuzz` starts it.
"""

import logging
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped,unused-ignore]
import structlog

from tests.fuzz.targets import TARGETS

# Sessions end by violations, thousands a second, each of which is logged.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
if len(sys.argv) == 1:
    print("\n".join(TARGETS))
    sys.exit()
target = TARGETS[sys.argv[1]]
if len(sys.argv) > 2 and (directory := Path(sys.argv[2])).is_dir():
    for number, seed in enumerate(target.seeds):
        (directory / f"seed-{number}").write_bytes(seed)
atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run)
atheris.Fuzz()
