"""`phalanx data ...`: what there is to know about a config's data."""

import typer

app = typer.Typer(help="Inspect and measure the data of a config.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Inspect and measure the data of a config."""
