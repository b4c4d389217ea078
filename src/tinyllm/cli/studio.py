"""`tinyllm studio`: shows the runs, models and shards of a folder in the browser, until a signal."""

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm.cli.console import note, show
from tinyllm.cli.model_options import EngineOptions
from tinyllm.cli.server_options import ServerOptions, check_folder, check_slots, end_process
from tinyllm.errors import InputError
from tinyllm.model_dir import bundled_model

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
"""Variables of the environment by which a Linux desktop is known; without one, a browser would fill the terminal."""


def studio(
    folder: Annotated[Path, Parameter(help="Folder to search for runs, models, shards and tokenizers.")] = Path(),
    *,
    browser: Annotated[bool, Parameter(help="Open the page in the browser.", negative="--no-browser")] = True,
    server: ServerOptions = ServerOptions(),  # noqa: B008 (frozen)
    max_slots: Annotated[int, Parameter(help="Texts to generate at a time, of each model.")] = 16,
    max_queue: Annotated[int, Parameter(help="Texts that may wait for a slot; more are refused with 503.")] = 64,
    engine: EngineOptions = EngineOptions(),  # noqa: B008 (frozen)
) -> None:
    """Show runs, models and data of a folder in the browser.

    The page follows runs while they train, continues texts, and looks into models, shards and tokenizers. It works
    offline and changes nothing in the folder. Models are loaded when they are used, four at most. The same server
    has OpenAI's interface, as tinyllm serve has. Ctrl-C ends it.

    For example:

      tinyllm studio
      tinyllm studio demo --port 8000 --no-browser
    """
    check_slots(max_slots, max_queue)
    check_folder(folder)
    key = server.read_key()
    # Imported late: they load the web framework.
    from tinyllm.serving.server import address_of, bind
    from tinyllm.serving.service import Service

    with bind(server.host, server.port) as bound:
        service = Service(server.access(bound, key))
        service.open_folder(folder, engine.load, extra_models=_bundled(), max_slots=max_slots, max_queue=max_queue)
        address = address_of(bound, server.host)

        def announce() -> None:
            show(f"the studio of {folder} is at {address} (Ctrl-C ends)", flush=True)
            if browser:
                threading.Thread(target=_open_browser, args=(address,), daemon=True).start()

        end_process(all_ended=service.run(bound, announce))


def _bundled() -> dict[str, Path]:
    """The bundled model by its name, if this installation has one."""
    try:
        path = bundled_model()
    except InputError as error:
        note(str(error))
        return {}
    return {path.name: path}


def _open_browser(address: str) -> None:
    """Opens the page, or says in one line that there is no browser to open it with."""
    has_display = not sys.platform.startswith("linux") or any(os.environ.get(name) for name in DISPLAYS)
    try:
        if has_display and webbrowser.open(address):
            return
    except webbrowser.Error as error:
        note(f"the browser cannot be opened: {error}")
    note(f"no browser was opened; go to {address} yourself")
