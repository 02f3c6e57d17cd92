"""From what was typed to a run folder."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from launch.config import load_config
from launch.exit_code import RequestError
from launch.run_config import RunConfig
from trainer.config.place import PlaceConfig
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


def config_of_run(folder: RunFolder, overrides: Sequence[str] = ()) -> RunConfig:
    """The config that a run has stored, with other settings put in.

    Raises:
        ConfigError: a setting is wrong.
    """
    config = load_config(folder.config, overrides)
    if config.run.folder.resolve() != folder.path.resolve():
        # The folder has been moved or renamed since it wrote its config, or the command is typed elsewhere.
        place = PlaceConfig.model_construct(dir=str(folder.path.parent), name=folder.path.name)
        config = config.model_copy(update={"run": place})
    return config
