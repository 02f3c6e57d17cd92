"""Look-ups and sparse updates of a table of embeddings a second, on a parameter server: ours and a hand-written loop.

python -m benchmarks.embeddings [--quick] [--json FILE] [--rows N] [--rounds N]

Both train the same model with plain SGD on the same ids: a table of rows of 16 numbers, 8 look-ups a sample, their mean
through one dense layer, 1,024 samples a step. Both have three processes: one holds the table, one computes, one says
what is next. The hand-written loop is what TensorFlow alone gives: variables on the server's device, and a function on
the worker's device that looks up, differentiates and scatters the update; no checkpoint, no metrics, no recovery. They
take turns; a figure is the median over the rounds, a ratio the median of the ratios of the rounds. A look-up is one row
read, an update one row's gradient applied; there are as many of both.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.attempts import started
from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from trainer.observe.metrics_log import read_metrics

WIDTH, FEATURES, BATCH = 16, 8, 1024
_WARM_STEPS = 40
_PHALANX = [sys.executable, "-c", "from launch.cli import main; main()"]


def samples(rows: int, split: str, batches: int = 64) -> dict[str, Any]:
    """Ids that follow no order, and a number for each sample: the source of both contenders."""
    import numpy as np

    rng = np.random.default_rng(split == "train")
    ids = rng.integers(0, rows, (batches * BATCH, FEATURES)).astype("int32")
    return {"ids": ids, "label": (ids.sum(-1) % 7).astype("float32")}


def model(rows: int) -> Any:
    """The mean of the rows, and a dense layer."""
    import keras

    inputs = keras.Input((FEATURES,), dtype="int32", name="ids")
    x = keras.layers.Embedding(rows, WIDTH, name="table")(inputs)
    x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="output")(x))


def ours(rows: int, steps: int, folder: Path) -> float:
    """Look-ups a second of `strategy.name=parameter_server`, by the run's own log after its first steps."""
    config = folder / "embeddings.yaml"
    source = {"name": "benchmarks.embeddings:samples", "options": {"rows": rows}, "batch_size": BATCH}
    network = {"name": "benchmarks.embeddings:model", "options": {"rows": rows}}
    # YAML reads JSON.
    config.write_text(
        json.dumps({"model": network, "task": {"name": "regression"}, "data": source, "train": {"epochs": 1}})
    )
    settings = [
        "strategy.name=parameter_server", "cluster.workers=3", "strategy.min_shard_bytes=1000", f"run.dir={folder}",
        "run.name=ours", f"train.steps={steps}", "train.epochs=null", "train.log_every=20", "optimizer.name=sgd",
        "optimizer.momentum=0", "optimizer.learning_rate=0.01", "evaluate.every=null", "export.enabled=false",
        "checkpoint.every=100000st", "observe.tensorboard=false", "cluster.snapshot_every=null",
    ]  # fmt: skip
    log = folder / "ours.log"
    with started([*_PHALANX, "train", str(config), *settings], log) as process:
        code = process.wait()
    if code:
        raise RuntimeError(f"our run ended with {code}: {log.read_text(errors='replace')[-1500:]}")
    lines = [line for line in read_metrics(folder / "ours" / "metrics.jsonl") if line["step"] > _WARM_STEPS]
    return FEATURES * median(line["examples_per_s"] for line in lines)


def by_hand(rows: int, steps: int) -> float:
    """Look-ups a second of the hand-written loop, in processes of its own."""
    addresses = {"ps": _free_address(), "worker": _free_address()}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "benchmarks.embeddings", "--role"]
    cluster = json.dumps({role: [address] for role, address in addresses.items()})
    servers = [
        subprocess.Popen([*command, role, "--cluster", cluster], env=environment, stderr=subprocess.DEVNULL)
        for role in addresses
    ]
    try:
        options = ["--cluster", cluster, "--rows", str(rows), "--steps", str(steps)]
        done = subprocess.run(
            [*command, "chief", *options], env=environment, capture_output=True, text=True, timeout=300
        )
    finally:
        for server in servers:
            server.kill()
            server.wait()
    if done.returncode:
        raise RuntimeError(f"the hand-written loop ended with {done.returncode}: {done.stderr[-1500:]}")
    return float(done.stdout.split()[-1])


def serve(role: str, cluster: dict[str, list[str]]) -> None:
    """A TensorFlow server, until it is killed."""
    import tensorflow as tf

    tf.distribute.Server(tf.train.ClusterSpec(cluster), job_name=role, task_index=0, protocol="grpc").join()


def hand_written(cluster: dict[str, list[str]], rows: int, steps: int) -> float:
    """Trains over remote devices; look-ups a second after the first steps."""
    import tensorflow as tf

    tf.config.experimental_connect_to_cluster(tf.train.ClusterSpec(cluster), job_name="chief", protocol="grpc")
    with tf.device("/job:ps/replica:0/task:0"):
        table = tf.Variable(tf.random.uniform([rows, WIDTH], -0.05, 0.05))
        kernel, bias = tf.Variable(tf.random.normal([WIDTH, 1])), tf.Variable(tf.zeros([1]))

    @tf.function
    def step(ids: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            x = tf.reduce_mean(tf.nn.embedding_lookup(table, ids), 1)
            loss = tf.reduce_mean(tf.square(tf.matmul(x, kernel)[:, 0] + bias - labels))
        of_table, of_kernel, of_bias = tape.gradient(loss, [table, kernel, bias])
        table.scatter_sub(tf.IndexedSlices(0.01 * of_table.values, of_table.indices))
        kernel.assign_sub(0.01 * of_kernel)  # type: ignore[operator]
        bias.assign_sub(0.01 * of_bias)  # type: ignore[operator]
        return loss

    arrays = samples(rows, "train")
    num_batches = len(arrays["label"]) // BATCH
    with tf.device("/job:chief/replica:0/task:0"):
        batches = [
            [tf.constant(array[i * BATCH : (i + 1) * BATCH]) for array in (arrays["ids"], arrays["label"])]
            for i in range(num_batches)
        ]
    began = 0.0
    for number in range(steps):
        if number == _WARM_STEPS:
            began = time.monotonic()
        with tf.device("/job:worker/replica:0/task:0"):
            float(step(*batches[number % num_batches]))
    return (steps - _WARM_STEPS) * BATCH * FEATURES / (time.monotonic() - began)


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def main() -> int:
    """Measures, prints and, if asked, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of a small table")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--rows", type=int, help="of the table; 1,000,000 without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each turn; 400 without it")
    parser.add_argument("--role", choices=("ps", "worker", "chief"), help=argparse.SUPPRESS)
    parser.add_argument("--cluster", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows, steps = (
        options.rows or (100_000 if options.quick else 1_000_000),
        options.steps or (140 if options.quick else 400),
    )
    if options.role == "chief":
        print(hand_written(options.cluster, rows, steps))
        return 0
    if options.role:
        serve(options.role, options.cluster)
        return 0
    machine = describe_machine(["python", "-m", "benchmarks.embeddings", *sys.argv[1:]])
    print_machine(machine)
    turns: list[dict[str, float]] = []
    for number in range(1 if options.quick else options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            contenders = {"ours": lambda: ours(rows, steps, Path(folder)), "by_hand": lambda: by_hand(rows, steps)}
            order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
            turns.append({name: contenders[name]() for name in order})
        print(
            f"round {number + 1}: " + "  ".join(f"{name} {value:,.0f}/s" for name, value in sorted(turns[-1].items()))
        )
    ratio = median(turn["ours"] / turn["by_hand"] for turn in turns)
    figures = {
        "rows": rows, "width": WIDTH, "lookups_per_step": BATCH * FEATURES, "steps": steps, "turns": turns,
        "lookups_per_s": {name: median(turn[name] for turn in turns) for name in ("ours", "by_hand")}, "ratio": ratio,
    }  # fmt: skip
    print(f"\n| | look-ups and updates a second |\n|---|---|\n| ours | {figures['lookups_per_s']['ours']:,.0f} |")
    print(f"| by hand | {figures['lookups_per_s']['by_hand']:,.0f} |")
    targets = [target_line("embeddings_of_by_hand", ratio, ">=0.8")]
    print("\n".join(targets))
    if options.json:
        write_result(options.json, machine, figures, targets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
