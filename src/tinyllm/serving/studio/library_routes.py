"""The routes of what a folder holds, and of loading a model."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from tinyllm.model import size
from tinyllm.serving.models import ServedModel
from tinyllm.serving.studio.answers import answer
from tinyllm.serving.studio.library import Catalogue, Item, shown
from tinyllm.serving.studio.queries import LoadBody
from tinyllm.serving.studio.runs import summarize
from tinyllm.serving.studio.site import Studio
from tinyllm.version import __version__

HIDDEN_FACTS = ("fingerprint", "changed", "tokenizer", "is_bundled", "is_whole")


def add_library(app: FastAPI, studio: Studio) -> None:
    """Adds the routes."""

    @app.get("/studio/api/library", include_in_schema=False)
    async def show_library() -> Response:
        catalogue = await studio.catalogue()
        runs = await studio.read(lambda: [summarize(item) for item in catalogue.runs.values()])
        return answer(
            {
                "folder": None if studio.library is None else shown(str(studio.library.folder)),
                "version": __version__,
                "models": _models(studio, catalogue),
                "first_model": _first_model(catalogue),
                "runs": runs,
                "shards": [_fields(item) for item in sorted(catalogue.shards.values(), key=_is_damaged)],
                "first_shards": _newest(item for item in catalogue.shards.values() if not _is_damaged(item)),
                "tokenizers": [_fields(item) for item in catalogue.tokenizers.values()],
                "is_whole": catalogue.is_whole,
            }
        )

    @app.post("/studio/api/models/load", include_in_schema=False)
    async def load(body: LoadBody) -> Response:
        async with studio.models.using(body.model) as model:
            return answer({"model": model.name, "loaded": True})


def _fields(item: Item) -> dict[str, Any]:
    return {name: value for name, value in item.fields().items() if name not in HIDDEN_FACTS}


def _is_damaged(item: Item) -> bool:
    return not item.facts["is_whole"]


def _newest(items: Iterable[Item]) -> str | None:
    """The id of the item that was changed last; None for no items."""
    newest = max(items, key=lambda item: item.facts["changed"], default=None)
    return None if newest is None else newest.id


def _first_model(catalogue: Catalogue) -> str | None:
    """The model to begin with: the newest one of a run, else the one in the package; None for the first of the list."""
    whole = [item for item in catalogue.models.values() if not _is_damaged(item)]
    trained = _newest(item for item in whole if item.facts["run"] is not None)
    return trained or _newest(item for item in whole if item.facts.get("is_bundled"))


def _models(studio: Studio, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every model that requests can name: with all facts if the folder has it, else those of the loaded one.

    Damaged ones come last.
    """
    loaded = {model.name: model for model in studio.models}
    described = []
    for fields in studio.models.describe_all():
        item = catalogue.models.get(fields["id"])
        model = loaded.get(fields["id"])
        if item is not None:
            described.append({**_fields(item), "loaded": model is not None})
        elif model is not None:
            described.append({"id": model.name, "name": model.name, **_facts(model), "loaded": True, "run": None})
    damaged = {id for id, item in catalogue.models.items() if _is_damaged(item)}
    return sorted(described, key=lambda fields: fields["id"] in damaged)


def _facts(model: ServedModel) -> dict[str, Any]:
    """The facts of a model that was named when the server started."""
    return {
        "parameters": size.num_parameters(model.config),
        "vocab_size": model.tokenizer.vocab_size,
        "context_length": model.context_length,
        "layers": model.config.num_layers,
        "heads": model.config.num_heads,
        "has_chat": model.chat_template is not None,
    }
