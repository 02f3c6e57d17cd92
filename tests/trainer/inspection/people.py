"""A small table of people and their pets, for tests."""

ROWS = 60
HEADER = "colour,age,height,kind"


def rows_of_people() -> list[str]:
    """Rows of a table in which no two are equal."""
    return [
        f"{('red', 'green')[i % 2]},{20 + i % 50},{150 + i / 7:.3f},{('cat', 'dog')[i % 3 == 0]}" for i in range(ROWS)
    ]
