"""The command `completion` of all our command lines: it prints a script for a shell."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

Shell = Literal["bash", "zsh", "fish"]


def add_completion(app: App) -> None:
    """Add the command to a command line."""

    @app.command
    def completion(shell: Annotated[Shell, Parameter(help="The shell.")], /) -> None:
        """Print a script with which a shell completes this command.

        Bash, zsh and fish load it from ~/.local/share/bash-completion/completions/COMMAND, a directory of `fpath`
        as _COMMAND, and ~/.config/fish/completions/COMMAND.fish.
        """
        print(app.generate_completion(shell=shell))  # noqa: T201 - it is for standard output
