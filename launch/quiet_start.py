"""TensorFlow's import without what it prints about missing GPUs and instruction sets, and without what it needs not."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# What Keras and TensorFlow import where it happens to be installed, and use only for plots, for scikit-learn's
# interface and for converting JAX functions: a third or more of the import's processor time, which every worker of
# every generation would pay (benchmarks/startup.py).
_NOT_NEEDED = ("jax", "matplotlib", "sklearn")


def import_tensorflow(compile_cache: str | None = None) -> None:
    """Import TensorFlow and let it look for devices, with the notes of both kept off the terminal.

    The notes come from C++ before any log level is read, so the descriptor itself is turned away meanwhile. They are
    shown after all when the import fails.

    Args:
        compile_cache: Folder for programs that XLA has compiled. TensorFlow reads this once in a process.
    """
    if compile_cache is not None:
        flag = f"--tf_xla_persistent_cache_directory={compile_cache}"
        os.environ["TF_XLA_FLAGS"] = f"{os.environ.get('TF_XLA_FLAGS', '')} {flag}".strip()
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes, _absent(_NOT_NEEDED):
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            import keras  # noqa: F401  here rather than later, when the packages are there again
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _absent(packages: tuple[str, ...]) -> Iterator[None]:
    """Makes packages look as if they were not installed, unless they have been imported already."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  None: the import system's word for "absent"
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, name) is None:
                del sys.modules[name]
