"""From the `model` section to the model."""

from __future__ import annotations

from typing import Any

import keras

from trainer.config.model import (
    CnnModel,
    CustomModel,
    MlpModel,
    ModelConfig,
    ResnetModel,
    TabularModel,
    TransformerLmModel,
)
from trainer.config.recommendation import DlrmModel, TwoTowerModel
from trainer.config.sequence_models import BertModel, TcnModel, TransformerForecasterModel
from trainer.config.table_models import DcnModel, WideAndDeepModel
from trainer.config.vision_models import ConvNextModel, EfficientNetV2Model, MobileNetV3Model, UnetModel, VitModel
from trainer.data.source import Schema
from trainer.models.bert import bert
from trainer.models.building import building
from trainer.models.cnn import cnn
from trainer.models.custom import custom_model
from trainer.models.dcn import dcn
from trainer.models.dlrm import dlrm
from trainer.models.mlp import mlp
from trainer.models.published import convnext, efficientnet_v2, mobilenet_v3
from trainer.models.resnet import resnet
from trainer.models.tabular import tabular
from trainer.models.tcn import tcn
from trainer.models.transformer_forecaster import transformer_forecaster
from trainer.models.transformer_lm import transformer_lm
from trainer.models.two_tower import two_tower
from trainer.models.unet import unet
from trainer.models.vit import vit
from trainer.models.wide_and_deep import wide_and_deep
from trainer.tasks.task import Task

# Each is a plain function (config, schema, task) -> keras.Model; adding a model is adding a line, and a section.
BUILDERS: dict[type, Any] = {
    MlpModel: mlp,
    CnnModel: cnn,
    ResnetModel: resnet,
    EfficientNetV2Model: efficientnet_v2,
    MobileNetV3Model: mobilenet_v3,
    ConvNextModel: convnext,
    VitModel: vit,
    UnetModel: unet,
    TabularModel: tabular,
    WideAndDeepModel: wide_and_deep,
    DcnModel: dcn,
    TwoTowerModel: two_tower,
    DlrmModel: dlrm,
    TransformerLmModel: transformer_lm,
    BertModel: bert,
    TcnModel: tcn,
    TransformerForecasterModel: transformer_forecaster,
    CustomModel: custom_model,
}


def build_model(
    config: ModelConfig, schema: Schema, task: Task, precision: str = "float32", seed: int | None = None
) -> keras.Model:
    """The model of a config, built, for data of this schema.

    Args:
        config: The `model` section.
        schema: Of the training data.
        task: Names the model's inputs and the shape of its output.
        precision: As in `trainer.models.building`.
        seed: Of the initial weights; None goes on with the random numbers as they are.

    Returns:
        A model whose output is logits of shape [B, *task.output_shape], with what the task trains behind them.

    Raises:
        ValueError: The model and the data do not fit, or the user's own model is no such model.
    """
    with building(precision, seed):
        return task.trained(BUILDERS[type(config)](config, schema, task))
