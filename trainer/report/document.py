"""What every page has: one file without network and library, its style, and sections with their notes in the margin."""

from importlib import resources

from trainer.report.markup import Markup, element


def document(title: str, *content: object, script: str | None = None) -> str:
    """A whole HTML document.

    Args:
        title: Of the window.
        content: Of `<main>`.
        script: Name of a script of this package that makes the page livelier; it must be readable without.
    """
    body = element("body", element("main", *content), element("script", Markup(_asset(script))) if script else None)
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", Markup(_asset("page.css"))),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def section(title: str, note: object, *content: object) -> Markup:
    """A section with its title and note in the margin."""
    margin = element("div", element("h2", title), element("p", note) if note else None, class_="margin")
    return element("section", margin, element("div", *content, class_="content"), class_="part")


def _asset(name: str) -> str:
    return resources.files("trainer.report").joinpath(name).read_text(encoding="utf-8")
