"""Gives each Python process the runtime of the sanitizers, and no other program: curl, for one, hangs with it.

`make test-asan` has this directory in PYTHONPATH, and the libraries in SANITIZERS. A process that begins without them
starts again with them; what it starts itself does not inherit them.
"""

import os
import sys

if os.environ.pop("LD_PRELOAD", None) is None:
    environment = os.environ | {"LD_PRELOAD": os.environ["SANITIZERS"]}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
