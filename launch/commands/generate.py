"""`phalanx generate RUN --prompt TEXT`: what a run's language model writes."""

from typing import Annotated

import typer


def generate(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What the text begins with.")],
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Most tokens to add to the prompt.")] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", help="1 draws as the model says, 0 takes the likeliest token.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Choose among the likeliest tokens only.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same text.")] = 0,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="last, best (by checkpoint.best_metric), or a step.")
    ] = "last",
) -> None:
    """Let a run's language model go on with a text."""
    from launch.checkpoint_choice import checkpoint_choice
    from launch.config import load_config
    from launch.quiet_start import import_tensorflow
    from launch.run_lookup import run_named

    choice = checkpoint_choice(checkpoint)
    folder = run_named(run)
    config = load_config(folder.config)
    import_tensorflow()
    from delivery.generation import Sampling, generate_text

    sampling = Sampling(temperature, top_k, seed)
    typer.echo(generate_text(config, folder, prompt, tokens=tokens, sampling=sampling, checkpoint=choice))
