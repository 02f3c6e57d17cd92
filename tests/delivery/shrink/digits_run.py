"""A small trained run on real digits."""

from pathlib import Path

from launch.cli import run


def train_digits(folder: Path) -> Path:
    config = folder / "digits.yaml"
    config.write_text(
        "model: {name: mlp, hidden: [64, 32], dropout: 0.1}\ndata: {name: digits}\n"
        "train: {epochs: 12, xla: false}\noptimizer: {name: adam, learning_rate: 0.003}\nexport: {enabled: false}\n"
    )
    assert run(["train", str(config), f"run.dir={folder}"]) == 0
    return folder / "digits"
