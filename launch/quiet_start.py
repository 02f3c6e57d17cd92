"""TensorFlow's import without what it prints about missing GPUs and instruction sets."""

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Import TensorFlow and let it look for devices, with the notes of both kept off the terminal.

    The notes come from C++ before any log level is read, so the descriptor itself is turned away meanwhile. They are
    shown after all when the import fails.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
