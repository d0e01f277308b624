"""Reads an HTML page for tests: its elements, their attributes, its text, and whether every tag is closed in order."""

import json
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr", "col"}


class Tree(HTMLParser):
    """Elements by name with their attributes; `errors` holds end tags that do not fit."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.errors, self.elements, self.texts = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.errors.append((tag, self.getpos()))
        elif self.open:
            self.open.pop()

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def ids(self) -> set[str]:
        return {attrs["id"] for _, attrs in self.elements if "id" in attrs}

    def data(self) -> dict:
        """The embedded JSON."""
        return json.loads(next(text for tag, text in self.texts if tag == "script" and text.startswith("{")))
