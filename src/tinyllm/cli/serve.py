"""`tinyllm serve`: serves models over HTTP until a signal."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm.cli.console import show
from tinyllm.cli.model_options import ModelOptions
from tinyllm.cli.server_options import ServerOptions, check_folder, check_slots, end_process
from tinyllm.model_dir import bundled_model


def serve(
    *models: Annotated[
        Path, Parameter(help="Model directories, run directories or other tools' models; default: the bundled one.")
    ],
    server: ServerOptions = ServerOptions(),  # noqa: B008 (frozen)
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
    key = server.read_key()
    # Imported late: they load the web framework.
    from tinyllm.serving.models import names_of
    from tinyllm.serving.server import address_of, bind
    from tinyllm.serving.service import Service

    paths = models or (bundled_model(),)
    names = names_of(paths)
    if studio is not None:
        check_folder(studio)
    with bind(server.host, server.port) as bound:
        service = Service(server.access(bound, key))
        for path, name in zip(paths, names, strict=True):
            service.add(name, options.load(path), max_slots=max_slots, max_queue=max_queue)
        if studio is not None:
            service.open_folder(studio, options.load, extra_models={}, max_slots=max_slots, max_queue=max_queue)
        ready = f"serving {', '.join(names)} at {address_of(bound, server.host)}/v1 (Ctrl-C ends)"
        end_process(all_ended=service.run(bound, lambda: show(ready, flush=True)))
