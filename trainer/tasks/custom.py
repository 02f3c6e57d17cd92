"""A task of the user's own."""

from __future__ import annotations

from trainer.config.task import CustomTask
from trainer.data.source import Schema
from trainer.importing import call_with, import_function
from trainer.tasks.task import Task


def custom_task(config: CustomTask, schema: Schema) -> Task:
    """Calls the user's function with its options, and with the `schema` where it has such a parameter.

    Raises:
        ValueError: The function cannot be imported or called, or does not return a `Task`.
    """
    function = import_function(config.name, "task.name")
    task = call_with(function, config.name, "task.name", {"schema": schema}, config.options)
    if not isinstance(task, Task):
        raise ValueError(
            f"task.name={config.name} must return a trainer.tasks.task.Task, not {type(task).__name__}: "
            "derive the class of what it returns from Task"
        )
    if not isinstance(getattr(task, "output_shape", None), tuple):
        raise ValueError(
            f"task.name={config.name}: {type(task).__name__} must have output_shape, the shape of the model's output "
            "for one sample: set it to a tuple, such as (10,)"
        )
    return task
