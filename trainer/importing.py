"""Finds what a config names as `package.module:function`, and calls it with what it asks for."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def import_function(name: str, key: str) -> Callable[..., Any]:
    """Imports a function of the user's; modules in the working directory are found too.

    Args:
        name: `package.module:function`.
        key: The config's key that names it, for messages.

    Raises:
        ValueError: The module cannot be imported, or has no such function.
    """
    module_name, _, function_name = name.partition(":")
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        # The console script puts its own folder there instead of the one that the user works in.
        sys.path.insert(0, working_directory)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            change = f"install it, or start from the folder that holds {missing.split('.')[0]}"
        else:
            change = f"install {missing}, which it imports"
        raise ValueError(f"{key}={name}: there is no module {missing}: {change}") from error
    except Exception as error:
        raise ValueError(
            f"{key}={name}: importing {module_name} fails with {type(error).__name__} ({error}): correct the module"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = sorted(n for n, value in vars(module).items() if inspect.isfunction(value) and not n.startswith("_"))
        has = f"it has {', '.join(found)}" if found else "it has no functions"
        raise ValueError(f"{key}={name}: {module_name} has no function {function_name}, {has}: correct the name")
    return function


def call_with(
    function: Callable[..., Any], name: str, key: str, offered: Mapping[str, object], options: Mapping[str, object]
) -> Any:
    """Calls the function with the options, and with those offered arguments that it has parameters for.

    Raises:
        ValueError: The options do not fit the function's parameters.
    """
    parameters = inspect.signature(function).parameters
    taken = {
        argument: value for argument, value in offered.items() if argument in parameters and argument not in options
    }
    try:
        inspect.signature(function).bind(**taken, **options)
    except TypeError as error:
        raise ValueError(
            f"{key}={name}: {error}: its parameters are ({', '.join(parameters)}), set them in "
            f"{key.rpartition('.')[0]}.options"
        ) from error
    return function(**taken, **options)
