"""What the live page says about reasons is what docs/reasons.md says."""

import importlib.util
import json
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_file_in_the_package_is_made_from_the_page() -> None:
    specification = importlib.util.spec_from_file_location("reasons", ROOT / "scripts" / "reasons.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    shown = (resources.files("kaa_gateway.admin") / "reasons.json").read_text(encoding="utf-8")
    assert shown == script.document(), "run `make reasons`"
    assert json.loads(shown)["mqtt_taken_over"]["action"]
