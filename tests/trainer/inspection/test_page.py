import re
from html.parser import HTMLParser

import numpy as np

from tests.trainer.inspection.people import rows_of_people
from trainer.inspection.inspection import inspect_source
from trainer.inspection.page import render


class _Page(HTMLParser):
    """The text of a page, and that its tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.figures = 0
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.figures += tag == "figure"
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)


def test_the_page_holds_each_feature_with_its_chart(open_csv):
    rows = rows_of_people()
    found = inspect_source(open_csv([*rows, rows[0], "<b>,30,150.1,cat", "red,inf,1,cat"]), "csv")
    html = render(found, "people")
    page = _Page(html)
    for name in ("colour", "age", "height", "kind"):
        assert page.texts.count(name) >= 2  # in the table, and over its chart
    assert page.figures == 4 and html.count("<svg") >= 6
    text = " ".join(page.texts)
    for part in (
        "people",
        "<b>",
        "cat",
        "dog",
        "feature 'age' holds an infinite value",
        "equal an earlier one",
        "66.1%",
    ):
        assert part in text
    assert "<b>" not in html and not re.search(r"(src|href)=|https?:|@import|url\(", html)


def test_values_that_cannot_be_drawn_are_still_listed(source_of):
    found = inspect_source(
        source_of({"same": np.ones(8), "id": np.arange(8) * 1000, "label": np.linspace(0, 1, 8)}), "arrays"
    )
    page = _Page(render(found, "odd"))
    assert {"same", "id", "label"} <= set(page.texts) and page.figures == 3
    assert "Labels" not in page.texts  # a regression has no balance
    part = inspect_source(source_of({"x": np.arange(99.0), "label": np.arange(99) % 2}), "arrays", most=10)
    assert "10 samples out of 99" in " ".join(_Page(render(part, "part")).texts)
