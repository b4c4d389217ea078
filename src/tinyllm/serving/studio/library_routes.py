"""The routes of what a folder holds, and of loading a model."""

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

HIDDEN_FACTS = ("fingerprint", "changed", "tokenizer")


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
                "runs": runs,
                "shards": [_fields(item) for item in catalogue.shards.values()],
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


def _models(studio: Studio, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every model that requests can name: with all facts if the folder has it, else those of the loaded one."""
    loaded = {model.name: model for model in studio.models}
    described = []
    for fields in studio.models.describe_all():
        item = catalogue.models.get(fields["id"])
        model = loaded.get(fields["id"])
        if item is not None:
            described.append({**_fields(item), "loaded": model is not None})
        elif model is not None:
            described.append({"id": model.name, "name": model.name, **_facts(model), "loaded": True, "run": None})
    return described


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
