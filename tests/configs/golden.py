"""The resolved form of every shipped config. Run as a module, it writes the golden dumps anew.

python -m tests.configs.golden
"""

from pathlib import Path

from launch.config import load_config, write_config

CONFIGS = sorted(Path("configs").glob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"


def resolved(config: Path) -> str:
    """The YAML text that a run of this config would keep in its folder."""
    return write_config(load_config(config))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for path in CONFIGS:
        (GOLDEN / path.name).write_text(resolved(path), encoding="utf-8")
        print(f"wrote {GOLDEN / path.name}")
