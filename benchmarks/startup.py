"""What it costs until a worker can begin: processor seconds of its imports, with and without what it does not need.

python -m benchmarks.startup [--quick] [--json FILE]

Both import everything that a training needs, in processes of their own that take turns; processor time, not the
clock's, so that other work beside it counts little. The ratio is the median of the rounds'.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.machine import describe_machine, print_machine, target_line, write_result

AS_IT_IS, PLAIN = "import_tensorflow()", "import tensorflow"
PROGRAMS = {
    AS_IT_IS: "from launch.quiet_start import import_tensorflow; import_tensorflow(); import trainer.training",
    PLAIN: "import tensorflow as tf; tf.config.list_physical_devices(); import trainer.training",
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each program in each round, the first of which, with a cold disk, is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds + 1):
        for name, program in PROGRAMS.items():
            before = _children_s()
            subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
            seconds[name].append(_children_s() - before)
    return {name: values[1:] for name, values in seconds.items()}


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: two rounds")
    parser.add_argument("--json", type=Path, help="result file to write")
    arguments = parser.parse_args()
    machine = describe_machine(["python", "-m", "benchmarks.startup", *sys.argv[1:]])
    print_machine(machine)
    seconds = measure(2 if arguments.quick else 7)
    ratio = median(ours / plain for ours, plain in zip(seconds[AS_IT_IS], seconds[PLAIN], strict=True))
    print("\nprocessor seconds until a training is imported")
    for name, values in seconds.items():
        print(f"  {name:<22} {median(values):6.2f}")
    target = target_line("startup_vs_plain_import", ratio, "<0.8")
    print(f"\n{target}")
    if arguments.json:
        write_result(arguments.json, machine, {"seconds": seconds, "ratio": ratio}, [target])


if __name__ == "__main__":
    main()
