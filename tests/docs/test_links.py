"""Links of the pages that the site does not hold; those of the site are checked by `make docs`."""

import re

from tests.docs.blocks import ROOT


def test_the_readme_links_to_what_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:\s]+)[^)]*\)", text)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_says_where_its_pictures_come_from() -> None:
    """A screen that nobody can make again goes out of date unseen."""
    made = (ROOT / "docs" / "pictures" / "make.py").read_text()
    drawn_by_hand = {"recovery.svg", "copies.svg"}
    shown = {
        picture
        for page in (ROOT / "docs").rglob("*.md")
        for picture in re.findall(r"!\[[^]]*\]\((?:\.\./)?assets/([^)]+)\)", page.read_text())
    }
    assert shown >= drawn_by_hand and all(f'"{picture}"' in made for picture in shown - drawn_by_hand)
