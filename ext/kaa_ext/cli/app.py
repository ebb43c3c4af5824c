"""The command line of `kaa-ext`: names its commands, whose modules are imported when they are used.

Importing all of them takes a second, most of it for what only `run` needs.
"""

from cyclopts import App
from kaa_gateway import __version__
from kaa_gateway.completion import add_completion

RUN = """Run services until Ctrl-C. Workers share the load; so do the processes of a command that is started twice.

Services: dcx (data collection), epts (storage of the data), cmx (configuration), ecr (registry of the
configurations), epmx (metadata), cex (commands), tsx (time), echo; auth (tokens and clients, for gateways).

Example: kaa-ext run dcx epts --settings services.yml
"""
NEW = """Write a new extension service: code, test, README.

Example: kaa-ext new thermostat
"""
REST = """Serve the REST API and the demo page until Ctrl-C. Needs the extra `rest`.

The services themselves run elsewhere (`kaa-ext run`). /openapi.json describes the API; /demo is a page that shows a
device.

Example: kaa-ext rest --host 0.0.0.0 --token-file /run/secrets/rest-token
"""
"""The help of commands that are functions: their modules are not imported for the list of commands."""

app = App(
    name="kaa-ext",
    help="Run Kaa extension services, write a new one, and use them from the shell.",
    help_format="plaintext",
    version=__version__,
)
app.command("kaa_ext.cli.commands:run_services", name="run", help=RUN)
app.command("kaa_ext.cli.scaffold:new", name="new", help=NEW)
app.command(
    "kaa_ext.cli.auth:app", name="auth", help="Add, list, suspend and revoke endpoint tokens and clients."
)
app.command(
    "kaa_ext.cli.config:app", name="config", help="Set, get and check the configurations of endpoints."
)
app.command(
    "kaa_ext.cli.command:app", name="command", help="Send commands to endpoints, and show their results."
)
app.command("kaa_ext.cli.metadata:app", name="metadata", help="Show and change the metadata of endpoints.")
app.command("kaa_ext.cli.data:app", name="data", help="Print the data samples of endpoints.")
app.command("kaa_ext.cli.rest:rest", name="rest", help=REST)
add_completion(app)
