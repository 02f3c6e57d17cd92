"""Reads what a file of JSON lines has gained since the last time."""

from pathlib import Path
from typing import Any

from trainer.observe.json_lines import decode_line


class Tail:
    """Follows a file that is only ever added to.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """The whole lines that are new; one that is being written is left for the next time.

        A file that has become shorter is read again from its beginning.
        """
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [record for line in whole.splitlines() if (record := decode_line(line)) is not None]
