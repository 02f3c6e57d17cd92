"""How Sphinx builds the documentation: `make docs`. Why so: design/documentation.md."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from launch.cli import app as command_line
from launch.config_schema import json_schema
from launch.quiet_start import import_tensorflow
from launch.reference.commands import commands_page
from launch.reference.settings import settings_page

ROOT = Path(__file__).parents[1]

# What the docstrings' modules import, without its notes.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
import_tensorflow()

project = "Phalanx"
html_title = "Phalanx"
copyright = "the authors of Phalanx"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["conf.py", "pictures"]

myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 6
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
default_role = "literal"
napoleon_numpy_docstring = False
add_module_names = False
python_use_unqualified_type_names = True
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

html_theme = "furo"
html_static_path = ["assets"]
html_css_files = ["site.css"]
html_favicon = "assets/favicon.svg"
pygments_style = "friendly"
pygments_dark_style = "nord-darker"
_LIGHT = {"background-primary": "#fbfaf7", "background-secondary": "#f4f1e9", "brand-primary": "#2c5cc5"}
_DARK = {"background-primary": "#161513", "background-secondary": "#1b1a17", "brand-primary": "#7ea6ff"}
html_theme_options = {
    "light_css_variables": {f"color-{name}": value for name, value in {**_LIGHT, "brand-content": "#2c5cc5"}.items()},
    "dark_css_variables": {f"color-{name}": value for name, value in {**_DARK, "brand-content": "#7ea6ff"}.items()},
}

# What is copied from a console is what was typed.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

_log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    app.connect("source-read", write_reference)
    app.connect("doctree-resolved", put_drawings_in)
    app.connect("build-finished", check_pages)


def write_reference(app: Sphinx, page: str, source: list[str]) -> None:
    """Writes the pages whose content is elsewhere: the program itself, and the files of the root."""
    if page == "reference/settings":
        source[0] = settings_page(json_schema())
    elif page == "reference/commands":
        source[0] = commands_page(command_line)
    elif page in ("changelog", "contributing"):
        text = (ROOT / f"{page.upper()}.md").read_text(encoding="utf-8")
        source[0] = text.replace("](docs/", "](").replace("](CHANGELOG.md", "](changelog.md")


def put_drawings_in(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Puts drawings into the page itself, so that they have the colours of the theme that is chosen there."""
    if app.builder.format != "html":
        return
    for image in list(tree.findall(nodes.image)):
        path = Path(app.srcdir) / image["uri"]
        if path.suffix == ".svg" and path.is_file():  # of one that is missing Sphinx has warned already
            drawing = path.read_text(encoding="utf-8")
            image.replace_self(nodes.raw("", f'<div class="drawing">{drawing}</div>', format="html"))


def check_pages(app: Sphinx, error: Exception | None) -> None:
    """Warns of pages that would ask another machine for something. With -W a warning ends the build."""
    for path in sorted(Path(app.outdir).rglob("*.html")) if error is None else ():
        reader = _Loaded()
        reader.feed(path.read_text(encoding="utf-8"))
        for address in reader.found:
            _log.warning("%s loads %s: the site must do without a network", path.name, address)
    # Sphinx asks for warnings before this event, so that it would pass over these.
    app.statuscode = app.statuscode or int(app._warncount > 0 and app.warningiserror)


class _Loaded(HTMLParser):
    """Finds what a page loads from elsewhere: scripts, styles, images; not the links that somebody may follow."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Looks at one element."""
        given = dict(attrs)
        names = ("src", "srcset", "data", "poster", *(("href",) if tag == "link" else ()))
        self.found += [value for name in names if re.match(r"(https?:)?//", value := given.get(name) or "")]
