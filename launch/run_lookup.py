"""From what was typed to a run folder."""

import difflib
from pathlib import Path

from launch.exit_code import RequestError
from trainer.run_folder import RunFolder, find_run

DEFAULT_FOLDER = Path("runs")


def run_named(text: str) -> RunFolder:
    """The run that is meant: the path of its folder, or the name of a folder in runs/.

    Raises:
        RequestError: there is none, but one of nearly the same name.
        RunFolderError: there is none.
    """
    if RunFolder(text).exists:
        return RunFolder(text)
    if (named := RunFolder(DEFAULT_FOLDER / text)).exists:
        return named
    parent = Path(text).parent if "/" in text else DEFAULT_FOLDER
    names = sorted(folder.name for folder in parent.glob("*") if RunFolder(folder).exists)
    if near := difflib.get_close_matches(Path(text).name, names, n=1):
        raise RequestError(f"{text} is not a run: did you mean {parent / near[0]}?")
    return find_run(text if "/" in text or Path(text).exists() else DEFAULT_FOLDER / text)
