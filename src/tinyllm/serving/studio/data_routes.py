"""The routes of shards and tokenizers: documents, search, statistics, and the pieces of a text."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi import Query as InAddress
from starlette.responses import Response

from tinyllm.model_dir import read_tokenizer
from tinyllm.serving.errors import model_not_found
from tinyllm.serving.studio.answers import answer
from tinyllm.serving.studio.pieces import piece_fields
from tinyllm.serving.studio.queries import DocumentsQuery, ItemQuery, PiecesBody, SearchQuery, SplitQuery
from tinyllm.serving.studio.search import search
from tinyllm.serving.studio.shard_view import SHOWN_TOKENS, open_shards, tokenizer_in
from tinyllm.serving.studio.site import Studio
from tinyllm.serving.studio.statistics import statistics
from tinyllm.tokenizer.codec import Tokenizer


def add_data(app: FastAPI, studio: Studio) -> None:
    """Adds the routes."""

    @app.get("/studio/api/shards", include_in_schema=False)
    async def show_shards(query: Annotated[ItemQuery, InAddress()]) -> Response:
        item = await studio.find("shards", query.id)
        splits = await studio.read(_splits, item.path)
        return answer({"id": item.id, "name": item.name, "tokenizer": item.facts.get("tokenizer"), "splits": splits})

    @app.get("/studio/api/documents", include_in_schema=False)
    async def show_documents(query: Annotated[DocumentsQuery, InAddress()]) -> Response:
        item = await studio.find("shards", query.id)
        return answer(await studio.read(_documents, item.path, query))

    @app.get("/studio/api/search", include_in_schema=False)
    async def find_documents(query: Annotated[SearchQuery, InAddress()]) -> Response:
        item = await studio.find("shards", query.id)
        return answer(await studio.read(_search, item.path, query))

    @app.get("/studio/api/statistics", include_in_schema=False)
    async def show_statistics(query: Annotated[SplitQuery, InAddress()]) -> Response:
        item = await studio.find("shards", query.id)
        return answer(await studio.read(_statistics, item.path, query))

    @app.post("/studio/api/pieces", include_in_schema=False)
    async def show_pieces(body: PiecesBody) -> Response:
        tokenizer = await _tokenizer(studio, body)
        return answer(await studio.read(_pieces, tokenizer, body.text))


async def _tokenizer(studio: Studio, body: PiecesBody) -> Tokenizer:
    """The tokenizer that a request names. A model that is not loaded stays so."""
    if body.tokenizer is not None:
        item = await studio.find("tokenizers", body.tokenizer)
        return await studio.read(tokenizer_in, item.path)
    for model in studio.models:
        if model.name == body.model:
            return model.tokenizer
    found = (await studio.catalogue()).models.get(body.model or "")
    if found is None:
        raise model_not_found(body.model or "")
    return await studio.read(read_tokenizer, found.path)


def _splits(folder: Path) -> dict[str, Any]:
    return {
        name: {"num_documents": split.num_documents, "num_tokens": split.num_tokens}
        for name, split in open_shards(folder).splits.items()
        if split.num_documents
    }


def _documents(folder: Path, query: DocumentsQuery) -> dict[str, Any]:
    view = open_shards(folder)
    split = view.splits[query.split]
    found = split.documents(query.start, query.start + query.limit, SHOWN_TOKENS)
    documents = [
        {"index": index, "num_tokens": num_tokens, "tokens": view.token_fields(ids)} for index, num_tokens, ids in found
    ]
    return {"documents": documents, "num_documents": split.num_documents}


def _search(folder: Path, query: SearchQuery) -> dict[str, Any]:
    view = open_shards(folder)
    return search(view, view.splits[query.split], query.text, query.start)


def _statistics(folder: Path, query: SplitQuery) -> dict[str, Any]:
    view = open_shards(folder)
    return statistics(view, view.splits[query.split])


def _pieces(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """The pieces of a text, each with its bytes. Raises InputError for a text that is no valid Unicode."""
    ids = tokenizer.encode(text)
    tokens = [{**piece_fields(tokenizer, id), "bytes": tokenizer.piece_bytes(id).hex()} for id in ids]
    return {
        "tokens": tokens,
        "characters_per_token": len(text) / len(ids) if ids else None,
        "bytes_per_token": len(text.encode()) / len(ids) if ids else None,
        "vocab_size": tokenizer.vocab_size,
    }
