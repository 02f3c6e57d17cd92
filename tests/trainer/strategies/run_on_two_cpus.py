"""Runs a program for TPUs on two CPUs, with jax alone: `python run_on_two_cpus.py PROGRAM ARGUMENTS RESULTS`.

ARGUMENTS is an .npz of `0`, `1` ... in the order of the program's parameters; those whose name ends in `s` differ
between the replicas and have both values, one after the other along the first axis. RESULTS is the first replica's.
"""

import os
import re
import sys

os.environ.update(JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_force_host_platform_device_count=2")

import jax
import numpy as np
from jax._src.interpreters.mlir import make_ir_context
from jax._src.lib import _jax  # type: ignore[attr-defined]
from jax._src.lib.mlir import ir  # type: ignore[attr-defined]
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlib import xla_client  # type: ignore[attr-defined]


def main(program: str, arguments: str, results: str) -> None:
    jax.config.update("jax_enable_x64", True)
    devices = jax.devices()
    with open(program, "rb") as file:
        module = _jax.mlir.xla_computation_to_mlir_module(xla_client.XlaComputation(file.read()))
    module = re.sub(r"mhlo\.copy (%[\w#]+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", module)
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = 2, 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.arange(2).reshape(-1, 1))
    with make_ir_context():
        loaded = devices[0].client.compile_and_load(
            ir.Module.parse(module), xla_client.DeviceList(tuple(devices)), options
        )
    mesh = Mesh(devices, "r")
    given = np.load(arguments)
    values = []
    for name in sorted(given.files, key=lambda name: int(name.rstrip("s"))):
        shards = np.split(given[name], 2) if name.endswith("s") else [given[name]] * 2
        spec = PartitionSpec("r") if name.endswith("s") else PartitionSpec()
        parts = [jax.device_put(shard, device) for shard, device in zip(shards, devices, strict=True)]
        values.append(jax.make_array_from_single_device_arrays(given[name].shape, NamedSharding(mesh, spec), parts))
    outputs = loaded.execute_sharded(values).disassemble_into_single_device_arrays()
    for both in outputs:
        np.testing.assert_array_equal(np.asarray(both[0]), np.asarray(both[1]))
    np.savez(results, *[np.asarray(both[0]) for both in outputs])


if __name__ == "__main__":
    main(*sys.argv[1:])
