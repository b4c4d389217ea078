"""`tinyllm serve`: serves models over HTTP until a signal."""

import socket
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm import text_input
from tinyllm.cli.console import show
from tinyllm.cli.model_options import ModelOptions
from tinyllm.cli.paths import expand_home
from tinyllm.errors import ArgumentsError, InputError, UsageError
from tinyllm.model_dir import bundled_model

KEY_LIMIT_BYTES = 4096


def serve(
    *models: Annotated[
        Path, Parameter(help="Model directories, run directories or other tools' models; default: the bundled one.")
    ],
    host: Annotated[str, Parameter(help="Address to listen on; any but loopback needs a key.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 = a free one.")] = 8080,
    api_key: Annotated[str | None, Parameter(help="Key that every request needs.", show_default=False)] = None,
    api_key_file: Annotated[Path | None, Parameter(help="File with the key; other users cannot see it.")] = None,
    allowed_host: Annotated[
        tuple[str, ...], Parameter(help="Further name of this server, as in the Host header.", negative="")
    ] = (),
    allow_origin: Annotated[
        tuple[str, ...],
        Parameter(help="Origin of web pages that may use the server, such as https://chat.example.", negative=""),
    ] = (),
    max_slots: Annotated[int, Parameter(help="Texts to generate at a time.")] = 64,
    max_queue: Annotated[int, Parameter(help="Texts that may wait for a slot; more are refused with 503.")] = 256,
    options: ModelOptions = ModelOptions(),  # noqa: B008 (frozen)
    studio: Annotated[
        Path | None, Parameter(help="Folder whose runs, models and shards the page shows; models load when used.")
    ] = None,
) -> None:
    """Serve models over HTTP, with OpenAI's interface.

    Any client of that interface works with the printed address and /v1. A request chooses a model by the name of its
    directory or file. The address itself is a page for people, and /docs lists all paths and parameters. Ctrl-C or
    SIGTERM ends the server after the running texts, a second one at once.

    For example:

      tinyllm serve
      tinyllm serve runs/mine stories15M.bin --port 8000
      tinyllm serve runs/mine --studio .
      tinyllm serve runs/mine --host 0.0.0.0 --api-key-file key.txt
    """
    check_slots(max_slots, max_queue)
    key = read_key(api_key, api_key_file)
    # Imported late: they load the web framework.
    from tinyllm.serving.models import names_of
    from tinyllm.serving.security import access
    from tinyllm.serving.server import address_of, bind
    from tinyllm.serving.service import Service

    paths = models or (bundled_model(),)
    names = names_of(paths)
    if studio is not None:
        check_folder(studio)
    with bind(host, port) as bound:
        check_key(host, bound, key)
        service = Service(access(host, key, allowed_host, allow_origin))
        for path, name in zip(paths, names, strict=True):
            service.add(name, options.load(path), max_slots=max_slots, max_queue=max_queue)
        if studio is not None:
            service.open_folder(studio, options.load, extra_models={}, max_slots=max_slots, max_queue=max_queue)
        ready = f"serving {', '.join(names)} at {address_of(bound, host)}/v1 (Ctrl-C ends)"
        service.run(bound, lambda: show(ready, flush=True))


def check_slots(max_slots: int, max_queue: int) -> None:
    """Raises UsageError for numbers of texts that no server can have."""
    if max_slots < 1 or max_queue < 0:
        raise UsageError(f"--max-slots is {max_slots} and --max-queue {max_queue}; at least 1 and 0 are needed")


def check_folder(folder: Path) -> None:
    """Raises InputError if `folder` is no folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder" if folder.exists() else f"{folder} does not exist")


def check_key(host: str, bound: socket.socket, key: str | None) -> None:
    """Raises UsageError if other machines can reach the socket and there is no key."""
    from tinyllm.serving.security import is_loopback

    if key is None and not is_loopback(bound.getsockname()[0]):
        raise UsageError(
            f"--host {host} can be reached from other machines, so a key is needed; add --api-key-file FILE"
        )


def read_key(key: str | None, file: Path | None) -> str | None:
    """The key of --api-key or --api-key-file. Raises ArgumentsError for both, InputError for an unusable one."""
    if key is not None and file is not None:
        raise ArgumentsError("--api-key and --api-key-file are two ways to give the key; use one")
    if file is not None:
        key = text_input.read_file(expand_home(file), KEY_LIMIT_BYTES).strip()
    if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
        raise InputError("the API key should be one word of ASCII characters; choose another")
    return key
