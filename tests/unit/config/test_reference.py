"""The reference of the configuration keys in docs/configuration.md, held against the code."""

from pathlib import Path

import pytest
import yaml
from kaa_gateway.config import load
from kaa_gateway.config import reference as config_reference

from tests.support.config import Write, problems, writer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


class TestReference:
    def test_documentation_has_the_table(self) -> None:
        documentation = Path(__file__).parents[3] / "docs" / "configuration.md"
        assert config_reference.table() in documentation.read_text(encoding="utf-8")

    def test_example_of_the_documentation_is_right(self, write: Write) -> None:
        documentation = Path(__file__).parents[3] / "docs" / "configuration.md"
        _, _, rest = documentation.read_text(encoding="utf-8").partition("<!-- example -->\n```yaml\n")
        example_file, _, _ = rest.partition("```")
        assert yaml.safe_load(example_file)
        assert problems(write(example_file)) == []

    def test_every_row_says_what_the_key_is(self) -> None:
        for row in config_reference.reference():
            assert row.description.endswith("."), row.path
            assert row.expected, row.path
            assert "|" not in row.description + row.expected, row.path

    def test_defaults_are_within_their_own_bounds(self) -> None:
        environ = {
            row.variable: row.default
            for row in config_reference.reference()
            if row.default and "<" not in row.variable + row.default
        }
        assert len(environ) > 40
        given_defaults = load(None, environ | {"SERVICE_INSTANCE_REPLICA_ID": "r"})
        assert given_defaults == load(None, {"SERVICE_INSTANCE_REPLICA_ID": "r"})
