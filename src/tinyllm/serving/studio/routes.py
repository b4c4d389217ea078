"""Adds the studio's page and its routes to the application. Each group of routes is a function of its own module.

The page and its static files need no key; everything under `/studio/api/` does (`security.OPEN_FOLDER`).
"""

from fastapi import FastAPI, Request
from starlette.responses import Response

from tinyllm.serving.studio.data_routes import add_data
from tinyllm.serving.studio.inside import add_inside
from tinyllm.serving.studio.library_routes import add_library
from tinyllm.serving.studio.page_files import INDEX
from tinyllm.serving.studio.playground import add_playground
from tinyllm.serving.studio.run_routes import add_runs
from tinyllm.serving.studio.site import Studio


def add_studio(app: FastAPI, studio: Studio) -> None:
    """Adds all routes."""
    for add in (_add_page, add_library, add_runs, add_data, add_playground, add_inside):
        add(app, studio)


def _add_page(app: FastAPI, studio: Studio) -> None:
    @app.get("/", include_in_schema=False)
    async def show_page(request: Request) -> Response:
        return await studio.page.respond(INDEX, request)

    @app.get("/studio/page/{name:path}", include_in_schema=False)
    async def send_file(name: str, request: Request) -> Response:
        return await studio.page.respond(name, request)
