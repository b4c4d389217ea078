"""`tinyllm studio`: shows the runs, models and shards of a folder in the browser, until a signal."""

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tinyllm.cli.console import note, show
from tinyllm.cli.serve import check_folder, check_key, check_slots, read_key
from tinyllm.errors import InputError
from tinyllm.loading import load
from tinyllm.model_dir import bundled_model

if TYPE_CHECKING:
    from tinyllm.generation.generator import Generator

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
"""Variables of the environment by which a Linux desktop is known; without one, a browser would fill the terminal."""


def studio(
    folder: Annotated[Path, Parameter(help="Folder to search for runs, models, shards and tokenizers.")] = Path(),
    *,
    browser: Annotated[bool, Parameter(help="Open the page in the browser.", negative="--no-browser")] = True,
    host: Annotated[str, Parameter(help="Address to listen on; any but loopback needs a key.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 = a free one.")] = 8080,
    api_key: Annotated[str | None, Parameter(help="Key that the page asks for.", show_default=False)] = None,
    api_key_file: Annotated[Path | None, Parameter(help="File with the key; other users cannot see it.")] = None,
    allowed_host: Annotated[
        tuple[str, ...], Parameter(help="Further name of this server, as in the Host header.", negative="")
    ] = (),
    allow_origin: Annotated[
        tuple[str, ...],
        Parameter(help="Origin of web pages that may use the server, such as https://chat.example.", negative=""),
    ] = (),
    max_slots: Annotated[int, Parameter(help="Texts to generate at a time, of each model.")] = 16,
    max_queue: Annotated[int, Parameter(help="Texts that may wait for a slot; more are refused with 503.")] = 64,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], Parameter(help="Precision of the weights.")
    ] = "float32",
    weights: Annotated[
        Literal["auto", "fp32", "bf16", "int8"],
        Parameter(help="Precision of the weights on a CPU: fp32 (auto) is exact, int8 is fastest."),
    ] = "auto",
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
    key = read_key(api_key, api_key_file)
    # Imported late: they load the web framework.
    from tinyllm.serving.security import access
    from tinyllm.serving.server import address_of, bind
    from tinyllm.serving.service import Service

    def load_model(path: Path) -> "Generator":
        return load(path, device=device, dtype=dtype, weights=weights, note=note)

    with bind(host, port) as bound:
        check_key(host, bound, key)
        service = Service(access(host, key, allowed_host, allow_origin))
        service.open_folder(folder, load_model, extra_models=_bundled(), max_slots=max_slots, max_queue=max_queue)
        address = address_of(bound, host)

        def announce() -> None:
            show(f"the studio of {folder} is at {address} (Ctrl-C ends)", flush=True)
            if browser:
                threading.Thread(target=_open_browser, args=(address,), daemon=True).start()

        service.run(bound, announce)


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
