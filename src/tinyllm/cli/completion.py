"""`tinyllm completion`: installs the completion of commands and flags for one shell; cyclopts makes the script."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from cyclopts import Parameter
from cyclopts.completion.detect import ShellDetectionError, detect_shell
from cyclopts.completion.install import add_to_rc_file, get_default_completion_path

from tinyllm import storage
from tinyllm.cli.app import PROGRAM, build_app
from tinyllm.cli.console import note
from tinyllm.errors import UsageError

OR_FILES = "-o bashdefault -o default"
"""Options of bash's `complete`: names of files where the script knows no word, as for texts."""
Shell = Literal["bash", "zsh", "fish"]
STARTUP_FILES: dict[Shell, str] = {"bash": ".bashrc", "zsh": ".zshrc"}
"""The file in the home directory that gets a line; fish needs none."""


def completion(
    shell: Annotated[Shell | None, Parameter(help="bash, zsh or fish; default: the shell that runs this.")] = None,
    /,
) -> None:
    """Install the completion of commands and flags for a shell.

    Writes one script below the home directory, and adds a line that loads it to .bashrc or .zshrc. A second call
    writes the same. Install again after an update of tinyllm.

    For example:

      tinyllm completion
      tinyllm completion zsh
    """
    chosen = _running_shell() if shell is None else shell
    script = get_default_completion_path(chosen, PROGRAM)
    text = build_app().generate_completion(shell=chosen)
    storage.write_file(script, text.replace(f"complete -F _{PROGRAM}", f"complete {OR_FILES} -F _{PROGRAM}"))
    note(f"wrote {script}")
    if chosen != "fish" and add_to_rc_file(script, PROGRAM, chosen):
        note(f"added a line to {Path.home() / STARTUP_FILES[chosen]} that finds it")
    if chosen == "zsh":
        note("zsh completes only after this line in .zshrc: autoload -Uz compinit && compinit")
    note(f"open a new {chosen}, and press Tab after: {PROGRAM}")


def _running_shell() -> Shell:
    """The shell that runs this process. Raises UsageError if it is unknown or another one."""
    try:
        found = detect_shell()
    except ShellDetectionError:
        found = None
    for shell in get_args(Shell):
        if shell == found:
            return shell  # type: ignore[no-any-return]
    raise UsageError(f"the shell is {found or 'unknown'}; name one of {', '.join(get_args(Shell))}")
