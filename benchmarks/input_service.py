"""The wait of a fast consumer with and without a data service, for `benchmarks.input`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.input_sources import IMAGES_BATCH, STEPS_PER_LOOP, Files, records_config
from launch.config import config_of_mapping, write_config
from launch.data_service import DataService
from trainer.config.data import CustomData, DataConfig
from trainer.data.block_reader import BlockReader
from trainer.data.mixture import sample_order
from trainer.data.pipeline import steps_of_block, train_blocks
from trainer.data.registry import open_source
from trainer.data.service import BlockAnswers, served_blocks
from trainer.data.shard import WHOLE
from trainer.run_folder import RunFolder

CONSUMED_PER_S = 8000.0  # images of 224 x 224 that a modern accelerator takes
STORAGE_S = 0.05  # that the storage of the second source takes to answer, each batch
READY_S = 120.0


def distant_images(split: str) -> Any:
    """Images that need no decoding, from storage that takes its time: a source of the user's own."""
    images = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), np.uint8)

    def read(index: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(STORAGE_S)
        return {"image": images[index % 64], "label": (index % 10).astype(np.int32)}

    return 100_000, read


def measure_waits(files: Files, service_workers: tuple[int, ...], seconds: float) -> dict[str, list[dict[str, float]]]:
    """Images a second and the share of the time that the consumer waits, by source and number of service workers."""
    sources: dict[str, DataConfig] = {
        "decodes": records_config(files),
        "waits for storage": CustomData(
            name="benchmarks.input_service:distant_images", num_classes=10, batch_size=IMAGES_BATCH
        ),
    }
    return {
        name: [{"workers": number, **_consume(data, number, seconds)} for number in service_workers]
        for name, data in sources.items()
    }


def _consume(data: DataConfig, service_workers: int, seconds: float) -> dict[str, float]:
    """Takes blocks as fast as an accelerator would, and counts what it waits."""
    with _reader(data, service_workers) as reader:
        reader.take(1)
        until = time.perf_counter() + 1.0
        while time.perf_counter() < until:  # what was read ahead while everything started is no speed
            reader.take(STEPS_PER_LOOP)
        reader.waited_s, count, began = 0.0, 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            steps = reader.take(STEPS_PER_LOOP).num_steps
            count += steps * data.batch_size
            time.sleep(steps * data.batch_size / CONSUMED_PER_S)
        taken_s = time.perf_counter() - began
    return {"images_per_s": count / taken_s, "data_wait": reader.waited_s / taken_s}


@contextmanager
def _reader(data: DataConfig, service_workers: int) -> Iterator[BlockReader]:
    source = open_source(data, "train")
    order = sample_order(data, source, 0)
    block_steps = steps_of_block(source, order, STEPS_PER_LOOP)
    stretch: dict[str, Any] = {"first_step": 0, "num_steps": 2**30, "block_steps": block_steps, "shard": WHOLE}
    if not service_workers:
        reader = BlockReader(train_blocks(source, order, **stretch), block_steps)
        yield reader
        reader.close()
        return
    with tempfile.TemporaryDirectory(prefix="phalanx-input-") as folder:
        config = config_of_mapping(
            {
                "model": {"name": "mlp"},
                "data": {**json.loads(data.model_dump_json()), "service": {"workers": service_workers}},
                "train": {"steps": 1},
                "run": {"dir": folder, "name": "served"},
            }
        )
        run = RunFolder(config.run.folder)
        run.create()
        run.write_config(write_config(config))
        service = DataService(config, run, lambda event, **fields: None, print)
        client = service.client()
        service.open()
        try:
            answers = BlockAnswers(source, order, (), 0)
            reader = BlockReader(served_blocks(client, answers, source=source, **stretch), block_steps)
            deadline = time.monotonic() + READY_S
            while client.num_workers < service_workers:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{service_workers} service workers did not start in {READY_S:g} s")
                reader.take(STEPS_PER_LOOP)
            yield reader
            reader.abandon()
        finally:
            client.close()
            service.close()
