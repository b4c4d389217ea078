"""One HTML file with a model, its tokenizer and an engine in JavaScript: it opens from disk, offline, on a phone.

weights  the numbers in the file: int8 with a scale for each row, or bfloat16
page     the file's text: the ES modules of this folder joined, and the data beside them
write    a model becomes a page, of at most 100 MB
read     a page becomes a model again

The modules (`*.js`) run in the page. `worker.js` imports those of the engine, `page.js` those that people see.
"""
