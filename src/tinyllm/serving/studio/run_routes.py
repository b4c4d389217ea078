"""The routes of runs: state, curves, samples, and the stream of what is new."""

from typing import Annotated

from fastapi import FastAPI
from fastapi import Query as InAddress
from starlette.responses import Response

from tinyllm.serving.studio.answers import EventResponse, answer
from tinyllm.serving.studio.curves import Cursor, Curves, read_curves
from tinyllm.serving.studio.library import RUN_LOG, Item
from tinyllm.serving.studio.queries import EventsQuery, ItemQuery, MetricsQuery, SamplesQuery
from tinyllm.serving.studio.runs import Settings, read_stops
from tinyllm.serving.studio.samples import read_samples
from tinyllm.serving.studio.site import Studio


def add_runs(app: FastAPI, studio: Studio) -> None:
    """Adds the routes."""

    @app.get("/studio/api/run", include_in_schema=False)
    async def show_run(query: Annotated[ItemQuery, InAddress()]) -> Response:
        return answer(await studio.states.describe(await studio.find("runs", query.id)))

    @app.get("/studio/api/metrics", include_in_schema=False)
    async def show_metrics(query: Annotated[MetricsQuery, InAddress()]) -> Response:
        item = await studio.find("runs", query.id)
        curves = await studio.read(_read_curves, item, query)
        return answer(curves.fields())

    @app.get("/studio/api/samples", include_in_schema=False)
    async def show_samples(query: Annotated[SamplesQuery, InAddress()]) -> Response:
        item = await studio.find("runs", query.id)
        found = await studio.read(read_samples, item.path, query.from_step, query.limit, with_steps=query.steps)
        return answer(found)

    @app.get("/studio/api/run/events", include_in_schema=False)
    async def follow_run(query: Annotated[EventsQuery, InAddress()]) -> Response:
        item = await studio.find("runs", query.id)
        cursor = None if query.cursor is None else Cursor.parse(query.cursor)
        studio.watchers.open()
        return EventResponse(studio.watchers.follow(item, cursor))


def _read_curves(item: Item, query: MetricsQuery) -> Curves:
    settings = Settings.read(item.path)
    return read_curves(
        item.path / RUN_LOG,
        query.points,
        tokens_per_step=settings.tokens_per_step,
        eval_interval=settings.eval_interval,
        from_step=query.from_step,
        to_step=query.to_step,
        stops=[stop for stop in read_stops(item.path) if "validation_loss" in stop],
    )
