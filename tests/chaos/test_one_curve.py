"""Elastic runs of one config on any number of workers, killed or not: one curve and one set of weights, to the bit."""

import hashlib
import random
import signal
from pathlib import Path

import pytest

from launch.exit_code import ExitCode
from tests.launch.supervised_runs import PATIENCE_S, curve, generations, kill, last_step, started, wait_until
from trainer.checkpoint.store import CheckpointStore

STEPS, PARTS, KILLS = 300, 4, 10
CONFIG = f"""\
train:
  {{steps: {STEPS}, log_every: 1, steps_per_loop: 3, virtual_workers: {PARTS}, synchronize_batch_norm: SYNCHRONIZED}}
optimizer: {{name: adam, learning_rate: 0.003}}
evaluate: {{every: null}}
checkpoint: {{every: 100000st}}
cluster: {{snapshot_every: 5, max_failures: 1000}}
strategy: {{name: elastic}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""
IMAGES = '{name: "tests.chaos.paced_samples:digits", num_classes: 10, batch_size: 32}'
TOKENS = '{name: "tests.chaos.paced_samples:tokens", target: null, num_classes: 32, batch_size: 32}'
MODELS = {
    "mlp": f"model: {{name: mlp, hidden: [64, 32], dropout: 0.3}}\ndata: {IMAGES}\n",
    "cnn": f'model: {{name: "tests.chaos.normalised_cnn:model"}}\ndata: {IMAGES}\n',
    "synchronized cnn": f'model: {{name: "tests.chaos.normalised_cnn:model"}}\ndata: {IMAGES}\n',
    "transformer_lm": "model: {name: transformer_lm, layers: 2, width: 32, heads: 2, dropout: 0.1}\n"
    f"task: {{name: language_modelling}}\ndata: {TOKENS}\n",
}
pytestmark = pytest.mark.processes


@pytest.mark.parametrize("model", MODELS)
def test_five_runs_have_one_curve(model, tmp_path, chaos_long):
    if not chaos_long:
        pytest.skip("needs minutes: --chaos-long; the short one is tests/launch/test_elastic_curve.py")
    config = tmp_path / "elastic.yaml"
    config.write_text(MODELS[model] + CONFIG.replace("SYNCHRONIZED", str(model == "synchronized cnn").lower()))
    seen = {f"{workers} workers": undisturbed(config, tmp_path, workers) for workers in (1, 2, 4)}
    seen[f"2 workers, {KILLS} killed"] = killed(config, tmp_path, random.Random(0))
    seen["4 workers, then 1, then 4"] = shrunk_and_grown(config, tmp_path)
    print(f"\n{model}: " + "; ".join(f"{name} {weights[:12]}" for name, (_, weights) in seen.items()))
    losses, weights = seen["1 workers"]
    assert len(losses) == STEPS
    assert all(seen[name] == (losses, weights) for name in seen), {name: one[1][:12] for name, one in seen.items()}


def undisturbed(config: Path, folder: Path, workers: int) -> tuple[list[float], str]:
    """What a run on so many workers has learned."""
    name, fast = f"whole-{workers}", folder / "fast"
    fast.touch()
    with started("train", *arguments(config, folder, name, workers, 0), FAST=str(fast)) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    return learned(folder / name)


def killed(config: Path, folder: Path, rng: random.Random) -> tuple[list[float], str]:
    """Two workers and a standby; a random member is killed again and again."""
    run, fast = folder / "killed", folder / "fast-killed"
    with started("train", *arguments(config, folder, run.name, 2, 1), FAST=str(fast)) as process:
        for _ in range(KILLS):
            wait_until(lambda: generations(run) and last_step(run) > 0, process)
            _, size = generations(run)[-1]
            kill(run, rng.randrange(size), signal.SIGKILL, process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    return learned(run)


def shrunk_and_grown(config: Path, folder: Path) -> tuple[list[float], str]:
    """Four workers without a standby, of which three die one after the other; those that replace them join."""
    run, fast = folder / "shrunk", folder / "fast-shrunk"
    with started("train", *arguments(config, folder, run.name, 4, 0), FAST=str(fast)) as process:
        wait_until(lambda: generations(run) and last_step(run) > 0, process)
        while generations(run)[-1][1] > 1:
            kill(run, generations(run)[-1][1] - 1, signal.SIGKILL, process)
        wait_until(lambda: generations(run)[-1][1] == 4, process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    sizes = [size for _, size in generations(run)]
    assert sizes[0] == 4 and 1 in sizes and sizes[-1] == 4, sizes
    return learned(run)


def arguments(config: Path, folder: Path, name: str, workers: int, standbys: int) -> list[str]:
    """Of the command line."""
    return [
        str(config),
        f"run.dir={folder}",
        f"run.name={name}",
        f"cluster.workers={workers}",
        f"cluster.standbys={standbys}",
    ]


def learned(run: Path) -> tuple[list[float], str]:
    """The losses of all steps, and a hash of the last state."""
    checkpoint = CheckpointStore(run / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == STEPS
    digest = hashlib.sha256()
    for name, values in sorted(checkpoint.arrays.items()):
        digest.update(name.encode() + values.tobytes())
    return [line["loss"] for line in curve(run)], digest.hexdigest()
