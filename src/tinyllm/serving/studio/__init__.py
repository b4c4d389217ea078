"""The studio: a page in the browser that shows runs, models and shards of a folder, and the routes behind the page.

    site       what one server offers: its models, and the folder
    routes     adds everything below to the application
    page_files the static files of the page, in `page/`

Nothing here writes into the folder.
"""
