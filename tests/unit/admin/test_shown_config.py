"""The configuration that the management API shows has no passwords of URLs."""

from pathlib import Path

from kaa_gateway.admin.shown_config import shown
from kaa_gateway.config import load

from tests.support.config import writer

FILE = """
kaa:
  kpc:
    bridge:
      url: mqtt://bridge:pa55word@broker:1884
"""


def test_passwords_in_urls_are_masked(tmp_path: Path) -> None:
    environ = {"NATS_URLS": "nats://user:pa55word@nats:4222"}
    document = shown(load(writer(tmp_path)(FILE), environ))
    kpc = document["kaa"]["kpc"]
    assert kpc["bridge"]["url"] == "mqtt://***@broker:1884"
    assert kpc["nats"]["urls"] == ["nats://***@nats:4222"]
    assert "pa55word" not in str(document)
