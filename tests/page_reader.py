"""Reads HTML that tinyllm draws, and fails at anything that could run or load something."""

from html.parser import HTMLParser

HOSTILE = (
    "<script>alert(1)</script>",
    "</span><img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "<!-- --><style>*{display:none}</style>",
    "&lt;b&gt; &amp; ' \"",
    "javascript:alert(1)",
    "]]></title><iframe>",
)


class Reader(HTMLParser):
    """Collects the text, the elements and their attributes; fails at an end without a begin."""

    VOID = frozenset({"rect", "path"})

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.elements, self.open = "", list[tuple[str, dict[str, str | None]]](), list[str]()
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check(content: str) -> Reader:
    """The read `content`, which has balanced elements, no script, no style sheet and no address."""
    reader = Reader(content)
    assert reader.open == []
    for tag, attributes in reader.elements:
        assert tag in {"div", "span", "table", "tr", "th", "td", "svg", "g", "rect", "path", "text", "title"}
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href")]
    return reader
