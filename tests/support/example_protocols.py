"""The example protocols of the documents, as modules."""

import importlib
import sys
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[2] / "docs" / "examples" / "protocols"

sys.path.append(str(DIRECTORY))
gt06: Any = importlib.import_module("gt06")
modbus: Any = importlib.import_module("modbus")
sys.path.remove(str(DIRECTORY))
