"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table.

    Args:
        head: a word a column.
        rows: Markdown, a text a column; line breaks become spaces, and a pipe stays one.

    >>> table(("name", "meaning"), [("a", "b | c")])
    ['| name | meaning |', '|---|---|', '| a | b \\\\| c |']
    """
    lines = [_row(head), "|" + "---|" * len(head)]
    return lines + [_row(tuple(" ".join(cell.split()).replace("|", "\\|") for cell in row)) for row in rows]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
