"""From a YAML file and overrides to a checked config."""

import copy
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from launch.config_errors import ConfigError, location_of, sentences, setting_of
from launch.config_keys import kind_of, section_at, takes_text, written_out
from launch.overrides import apply_overrides
from launch.run_config import RunConfig, with_strategy_of_slice
from launch.yaml_text import Document, Location, dotted, read_document, write_yaml
from trainer.config.choice import chosen
from trainer.config.place import PlaceConfig
from trainer.run_folder import RunFolder

__all__ = ["ConfigError", "RunConfig", "config_of_mapping", "config_of_run", "load_config", "write_config"]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file, put the command line's settings in and check everything.

    Args:
        path: a YAML file.
        overrides: settings as typed, such as "train.steps=200".

    Raises:
        ConfigError: with every problem found, one sentence each.
    """
    path = Path(path)
    document = read_document(_read(path), str(path))
    return check_config(document, overrides, default_name=_name_from(path.stem), file=str(path))


def check_config(
    document: Document, overrides: Sequence[str], *, default_name: str, file: str | None = None
) -> RunConfig:
    """Put settings into what a config says, and check everything.

    Args:
        document: what the config says.
        overrides: settings as typed, such as "train.steps=200".
        default_name: of the run, where nothing names it.
        file: that the document was read from; None: there is no file to point at.

    Raises:
        ConfigError: with every problem found, one sentence each.
    """
    if document.problems and not document.values:
        raise ConfigError(document.problems)
    file_values = document.values
    overridden = apply_overrides(
        file_values,
        overrides,
        lambda location: takes_text(RunConfig, file_values, location),
        lambda location, value: written_out(RunConfig, file_values, location, value),
    )
    values = _without_foreign_keys(overridden.values, file_values, overridden.locations)
    _let_new_length_replace(values, overridden.locations)
    values = _with_empty_sections(values)
    if isinstance(run := values.setdefault("run", {}), dict):
        run.setdefault("name", default_name)
    origins = {
        location: f"{file}, line {line}"
        for location, line in document.lines.items()
        if file is not None and location not in overridden.locations
    }
    config, problems = _check(values, origins)
    problems = [*document.problems, *overridden.problems, *problems]
    if problems or config is None:
        raise ConfigError(problems)
    return config


def config_of_mapping(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Check a config that a program has made.

    Args:
        values: the sections. A key with dots, such as "train.steps", is put into its section.
        overrides: settings as typed, which come after those.

    Raises:
        ConfigError: with every problem found, one sentence each.
        TypeError: a value is nothing that a config file could hold.
    """
    sections = {key: value for key, value in values.items() if "." not in key}
    model = sections.get("model")
    name = values.get("model.name", model.get("name") if isinstance(model, Mapping) else None)
    put_in = apply_overrides(sections, [setting(key, value) for key, value in values.items() if "." in key])
    if put_in.problems:
        raise ConfigError(put_in.problems)
    # By way of the text that a file would hold, so that nothing is read otherwise than from a file.
    document = read_document(write_yaml(json.loads(json.dumps(put_in.values, default=_plain))), "the config")
    return check_config(document, overrides, default_name=_name_from(str(name or "run")))


def setting(key: str, value: Any) -> str:
    """A setting as it is typed on the command line.

    >>> setting("model.hidden", (256, 128)), setting("optimizer.learning_rate", 1e-05), setting("run.name", "7")
    ('model.hidden=[256, 128]', 'optimizer.learning_rate=1e-05', 'run.name="7"')

    Raises:
        TypeError: the value is nothing that a config file could hold.
    """
    return f"{key}={json.dumps(value, default=_plain)}"


def _plain(value: Any) -> Any:
    """What JSON has for a value that it does not know: a path's text, NumPy's numbers and arrays."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        f"{value!r} is a {type(value).__name__}, which a config cannot hold: give a number, text, or a list"
    )


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


def write_config(config: RunConfig) -> str:
    """The YAML text of a config, every setting written out; `load_config` reads the same config from it."""
    return write_yaml(_names_first(config.model_dump(mode="json")))


def _names_first(values: Any) -> Any:
    """Puts the key that chooses a section's other keys before them."""
    if not isinstance(values, dict):
        return values
    ordered = {"name": values["name"], **values} if "name" in values else values
    return {key: _names_first(value) for key, value in ordered.items()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [item.name for item in path.parent.glob("*.yaml")], n=1)
        change = f"did you mean {path.parent / near[0]}?" if near else "check the path"
        raise ConfigError([f"there is no file {path}: {change}"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path} is a folder: name the config file in it, as in {path / 'config.yaml'}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} must be UTF-8 text, and byte {error.start} is not: save it as UTF-8"]) from None
    except OSError as error:
        raise ConfigError([f"{path} cannot be read ({error.strerror}): check the path and its permissions"]) from None


def _name_from(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("_.-") or "run"


def _with_empty_sections(values: dict[str, Any]) -> dict[str, Any]:
    """Reads `train:` with nothing below it as a section without settings."""
    filled = dict(values)
    for key, field in RunConfig.model_fields.items():
        kind = kind_of(field)
        if key in filled and filled[key] is None and kind.sections and not kind.optional:
            filled[key] = {}
    return filled


def _without_foreign_keys(
    values: dict[str, Any], file_values: dict[str, Any], locations: frozenset[Location]
) -> dict[str, Any]:
    """Drops what the file says for another variant: `model.name=cnn` on the command line leaves out the MLP's layers.

    Only settings of the file's variant are dropped, so a mistyped one is still reported.
    """
    for location in locations:
        if len(location) != 2 or location[1] != "name" or location[0] not in RunConfig.model_fields:
            continue
        kind = kind_of(RunConfig.model_fields[str(location[0])])
        before, after = file_values.get(str(location[0])), values[str(location[0])]
        old, new = kind.section_for(before), chosen(kind.sections, after.get("name"))
        if len(kind.sections) < 2 or old is None or new is None or not isinstance(before, dict):
            continue
        foreign = set(before) & (set(old.model_fields) - set(new.model_fields))
        for key in foreign:
            if (location[0], key) not in locations:
                del after[key]
    return values


def _let_new_length_replace(values: dict[str, Any], locations: frozenset[Location]) -> None:
    """Lets `train.steps=200` on the command line stand instead of the file's epochs, and the other way round."""
    lengths = {"steps", "epochs"}
    train = values.get("train")
    given = {key for key in lengths if ("train", key) in locations}
    if isinstance(train, dict) and len(given) == 1 and train[next(iter(given))] is not None:
        train.pop(next(iter(lengths - given)), None)


def _check(values: dict[str, Any], origins: Mapping[Location, str]) -> tuple[RunConfig | None, list[str]]:
    """Validate; without the settings that are wrong once more, so that rules between the other settings speak too."""
    problems: list[str] = []
    removed: list[Location] = []
    remaining = values
    while True:
        try:
            # Through JSON, because only there strict types and lists for tuples go together.
            config = RunConfig.model_validate_json(json.dumps(with_strategy_of_slice(remaining)), strict=True)
            return (None if problems else config), problems
        except ValidationError as error:
            errors = error.errors(include_url=False)
        remaining, newly_removed = copy.deepcopy(remaining), []
        for item in errors:
            location = location_of(item)
            new = sentences(item, RunConfig, remaining, origins)
            problems.extend(text for text in new if text not in problems and not _follows_from(text, removed))
            if (removable := _removable(values, location)) is not None:
                newly_removed.append(removable)
        found = [_remove(remaining, location) for location in newly_removed]
        if not any(found):
            return None, problems
        removed.extend(newly_removed)


def _follows_from(text: str, removed: Sequence[Location]) -> bool:
    """Whether a problem is about a setting that was taken out, and so says nothing about what the user wrote."""
    return any(re.search(rf"(?<![\w.]){re.escape(dotted(location))}\b", text) for location in removed)


def _removable(values: dict[str, Any], location: Location) -> Location | None:
    """The setting at a location, or the section around it where it is required; None where that is required too."""
    location = setting_of(location)
    while location:
        section = section_at(RunConfig, values, location[:-1])
        field = section.model_fields.get(str(location[-1])) if section else None
        if field is None or not field.is_required():
            return location
        location = location[:-1]
    return None


def _remove(values: dict[str, Any], location: Location) -> bool:
    """Take a setting out; returns whether it was there."""
    section: Any = values
    for part in location[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or location[-1] not in section:
        return False
    del section[location[-1]]
    return True
