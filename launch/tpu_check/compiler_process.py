"""The compiler of TPUs in a process of its own: jax and libtpu only, because TensorFlow does not bear a second one.

Requests come on standard input, one JSON object a line: {"topology": "v5e:2x2", "program": path of a serialized HLO
module, "quick": whether the lowest level of optimization will do}. Answers go to standard output, one JSON
object a line; see `_compile`. It ends with its standard input.
"""

import json
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

# Read by libtpu when it is loaded: no question to a metadata server, and no lock on chips that are not there.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4,
    "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
_COLLECTIVE = re.compile(
    r" = (?P<shape>\([^=]*?\)|\S+) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_SHAPE = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)\]")


def main() -> None:
    """Answers requests until standard input ends, also while a compilation is under way."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    requests: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    from jax.experimental import topologies

    while True:
        request = json.loads(requests.get())
        try:
            devices = topologies.get_topology_desc(platform="tpu", topology_name=request["topology"]).devices
            answer = {"kind": devices[0].device_kind, "devices": len(devices), "chips": _chips(devices)}
            if "program" in request:
                answer |= _compile(list(devices), request["program"], request.get("quick", False))
        except Exception as error:
            answer = {"error": str(error) or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _chips(devices: Sequence[Any]) -> int:
    return len({tuple(device.coords) for device in devices})


def _compile(devices: list[Any], path: str, quick: bool) -> dict[str, Any]:
    """Compiles a module for one replica on each device.

    Returns:
        memory: bytes of a device for arguments, outputs, alias (outputs that take the place of arguments), temporaries
            and code; flops and bytes_accessed of a device, loops counted once where their length is not known;
            collectives: kind, bytes and type of each; compile_s.
    """
    import numpy as np
    from jax._src.interpreters.mlir import make_ir_context
    from jax._src.lib import _jax  # type: ignore[attr-defined]
    from jax._src.lib.mlir import ir  # type: ignore[attr-defined]
    from jaxlib import xla_client  # type: ignore[attr-defined]

    with open(path, "rb") as file:
        module = _jax.mlir.xla_computation_to_mlir_module(xla_client.XlaComputation(file.read()))
    # The compiler takes StableHLO, which has no copy; a reshape to the same shape is none either.
    module = re.sub(r"mhlo\.copy (%[\w#]+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", module)
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = len(devices), 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.arange(len(devices)).reshape(-1, 1))
    build = options.executable_build_options
    build.num_replicas, build.num_partitions = len(devices), 1
    build.device_assignment = options.device_assignment
    if quick:  # minutes less for a large network; temporaries are overstated
        build.optimization_level = 1
    began = time.monotonic()
    with make_ir_context():
        parsed = ir.Module.parse(module)
    compiled = devices[0].client.compile(parsed, xla_client.DeviceList(tuple(devices)), options)
    compile_s = time.monotonic() - began
    stats, cost = compiled.get_compiled_memory_stats(), compiled.cost_analysis()
    return {
        "compile_s": compile_s,
        "memory": {
            "arguments": stats.argument_size_in_bytes,
            "outputs": stats.output_size_in_bytes,
            "alias": stats.alias_size_in_bytes,
            "temporaries": stats.temp_size_in_bytes,
            "code": stats.generated_code_size_in_bytes,
        },
        "flops": cost.get("flops", 0.0),
        "bytes_accessed": cost.get("bytes accessed", 0.0),
        "collectives": collectives_of(compiled.hlo_modules()[0].to_string()),
    }


def collectives_of(module: str) -> list[dict[str, Any]]:
    """The collectives in the text of a compiled module, with the bytes that each hands over.

    >>> collectives_of("  %a = (f32[64,10]{0,1}, bf16[]) all-reduce(%x, %y), replica_groups={{0,1}}")
    [{'kind': 'all-reduce', 'bytes': 2562, 'types': ['bf16', 'f32']}]
    >>> collectives_of("  %b = f32[] get-tuple-element(%all-reduce.6), index=1")
    []
    """
    found = []
    for match in _COLLECTIVE.finditer(re.sub(r"/\*.*?\*/", "", module)):
        shapes = _SHAPE.findall(match["shape"])
        size = sum(_BYTES.get(kind, 4) * int(_product(dimensions)) for kind, dimensions in shapes)
        found.append({"kind": match["kind"], "bytes": size, "types": sorted({kind for kind, _ in shapes})})
    return found


def _product(dimensions: str) -> int:
    result = 1
    for dimension in filter(None, dimensions.split(",")):
        result *= int(dimension)
    return result


if __name__ == "__main__":
    main()
