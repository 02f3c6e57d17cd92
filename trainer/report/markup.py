"""HTML and SVG elements as strings that are escaped exactly once."""

import html


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """`value` as text inside an element, unless it is markup already."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(*children: object) -> Markup:
    """The children one after the other; None is left out."""
    return Markup("".join(escape(child) for child in children if child is not None))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element.

    Args:
        name: its tag.
        children: text (escaped) or markup; None is left out.
        attributes: by name; an underscore stands for a hyphen, one at the end is dropped (`class_`); None is left out.

    >>> element("p", "a < b", class_="note", data_step=3)
    '<p class="note" data-step="3">a &lt; b</p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")
