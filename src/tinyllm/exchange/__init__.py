"""Other tools' formats: read into our names and layout, written from them."""
