"""The models of this package with their sizes, each built for a typical data set."""

from dataclasses import asdict, dataclass
from typing import Any

from launch.config_keys import IMPORTABLE, Kind, kind_of
from launch.quiet_start import import_tensorflow
from launch.run_config import RunConfig
from trainer.config.choice import accepted_names
from trainer.config.recommendation import RetrievalTask
from trainer.config.segmentation import SegmentationTask
from trainer.config.task import ClassificationTask, LanguageModellingTask, MaskedLmTask, RegressionTask
from trainer.config.verification import VerificationTask
from trainer.data.source import Feature, Schema
from trainer.observe.number_text import format_bytes, format_count

SMALL_IMAGES = Schema(
    {"image": Feature((28, 28, 1), "float32"), "label": Feature((), "int32", num_values=10)}, "label", 1000, 10
)
PHOTOGRAPHS = Schema(
    {"image": Feature((224, 224, 3), "float32"), "label": Feature((), "int32", num_values=1000)}, "label", 1000, 1000
)
COLUMNS = Schema(
    {
        "carrier": Feature((), "int32", vocabulary=tuple("abcdefghijklmnop"), num_values=17),
        "distance": Feature((), "float32", mean=0.0, std=1.0),
        "label": Feature((), "int32", num_values=2),
    },
    "label",
    1000,
    2,
)
TOKENS = Schema({"tokens": Feature((129,), "int32", num_values=256)}, None, 1000, 256)
HIDDEN_TOKENS = Schema(
    {"tokens": Feature((128,), "int32", num_values=257), "originals": Feature((128,), "int32")}, "originals", 1000, 257
)
SERIES = Schema(
    {"past": Feature((72, 17), "float32"), "coming": Feature((24, 3), "float32", continues=True)}, "coming", 1000
)

SCANS = Schema(
    {"image": Feature((64, 64, 1), "float32"), "mask": Feature((64, 64), "int32", num_values=3)}, "mask", 1000, 3
)

PEOPLE_AND_ITEMS = Schema(
    {
        "user_id": Feature((), "int32", vocabulary=tuple(map(str, range(1000))), num_values=1001),
        "item_id": Feature((), "int32", vocabulary=tuple(map(str, range(1000))), num_values=1001),
        "log_share": Feature((), "float32"),
        "to_find": Feature((), "int32", num_values=2),
    },
    "to_find",
    1000,
)

TASKS = {
    "language_modelling": LanguageModellingTask(),
    "masked_lm": MaskedLmTask(),
    "segmentation": SegmentationTask(),
    "retrieval": RetrievalTask(),
    "verification": VerificationTask(),
}
SAMPLES = ["classification", "regression", "multi_label"]
OF_IMAGES = [*SAMPLES, "verification"]
OF_SERIES = ["regression", "classification", "multi_label"]


@dataclass(frozen=True)
class Example:
    """For what data a model is built in the list, and which tasks fit it."""

    data: str
    schema: Schema
    tasks: list[str]


EXAMPLES = {
    "mlp": Example("images of 28 x 28, 10 classes", SMALL_IMAGES, OF_IMAGES),
    "cnn": Example("images of 28 x 28, 10 classes", SMALL_IMAGES, OF_IMAGES),
    "resnet": Example("images of 224 x 224 x 3, 1,000 classes", PHOTOGRAPHS, OF_IMAGES),
    "efficientnet_v2": Example("images of 224 x 224 x 3, 1,000 classes", PHOTOGRAPHS, OF_IMAGES),
    "mobilenet_v3": Example("images of 224 x 224 x 3, 1,000 classes", PHOTOGRAPHS, OF_IMAGES),
    "convnext": Example("images of 224 x 224 x 3, 1,000 classes", PHOTOGRAPHS, OF_IMAGES),
    "vit": Example("images of 224 x 224 x 3, 1,000 classes", PHOTOGRAPHS, OF_IMAGES),
    "unet": Example("images of 64 x 64, 3 classes of pixels", SCANS, ["segmentation"]),
    "tabular": Example("16 categories and a number, 2 classes", COLUMNS, SAMPLES),
    "wide_and_deep": Example("16 categories and a number, 2 classes", COLUMNS, SAMPLES),
    "dcn": Example("16 categories and a number, 2 classes", COLUMNS, SAMPLES),
    "two_tower": Example("1,000 people and 1,000 items", PEOPLE_AND_ITEMS, ["retrieval"]),
    "dlrm": Example("16 categories and a number, 2 classes", COLUMNS, SAMPLES),
    "transformer_lm": Example("context of 128 bytes", TOKENS, ["language_modelling"]),
    "bert": Example("context of 128 bytes", HIDDEN_TOKENS, ["masked_lm", *SAMPLES]),
    "tcn": Example("72 past steps of 17 channels, 24 of 3 to predict", SERIES, OF_SERIES),
    "transformer_forecaster": Example("72 past steps of 17 channels, 24 of 3 to predict", SERIES, OF_SERIES),
}


@dataclass(frozen=True)
class ListedModel:
    """A model as `phalanx models` shows it.

    Attributes:
        name: for `model.name`.
        description: one sentence.
        tasks: names of the tasks that fit.
        data: what it was built for here.
        parameters: trainable and other ones; None for a model of the user's own.
        bytes: of the parameters, as they are stored.
        options: its settings with their defaults.
    """

    name: str
    description: str
    tasks: list[str]
    data: str | None
    parameters: int | None
    bytes: int | None
    options: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def list_models() -> list[ListedModel]:
    """Build every model of this package with its default options."""
    import_tensorflow()
    from trainer.models.registry import build_model
    from trainer.tasks.registry import build_task

    kind: Kind = kind_of(RunConfig.model_fields["model"])
    listed = []
    for section in kind.sections:
        names, _ = accepted_names(section)
        description = (section.__doc__ or "").splitlines()[0]
        if not names:
            all_tasks = [*SAMPLES, *TASKS]
            listed.append(ListedModel(IMPORTABLE, description, all_tasks, None, None, None, {"options": {}}))
            continue
        config: Any = section()
        example = EXAMPLES[names[0]]
        of_samples = RegressionTask() if example.tasks[0] == "regression" else ClassificationTask()
        task = TASKS.get(example.tasks[0], of_samples)
        model = build_model(config, example.schema, build_task(task, example.schema))
        size = sum(variable.value.dtype.size * int(variable.value.shape.num_elements()) for variable in model.weights)
        options = config.model_dump(mode="json", exclude={"name"})
        listed.append(
            ListedModel(names[0], description, example.tasks, example.data, model.count_params(), size, options)
        )
    return listed


def describe_models(models: list[ListedModel]) -> str:
    """The list for people."""
    blocks = []
    for model in models:
        lines = [f"{model.name}: {model.description}"]
        if model.parameters is not None and model.bytes is not None:
            size = f"{format_count(model.parameters)} parameters, {format_bytes(model.bytes)}"
            lines.append(f"  {size} ({model.data})")
        lines.append(f"  tasks: {', '.join(model.tasks)}")
        options = "  ".join(f"{name}={value}" for name, value in model.options.items())
        lines.append(f"  {options}".replace("=None", "=null").replace("=True", "=true").replace("=False", "=false"))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
