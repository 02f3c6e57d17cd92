from launch.config_keys import all_settings, field_at, kind_of, section_at, takes_text
from launch.run_config import RunConfig
from trainer.config.optimizer import AdamOptimizer, CosineSchedule, StepSchedule

FIELDS = RunConfig.model_fields


def test_the_section_follows_the_names_in_the_values():
    values = {"optimizer": {"schedule": {"name": "cosine"}}}
    assert section_at(RunConfig, values, ("optimizer",)) is AdamOptimizer
    assert section_at(RunConfig, values, ("optimizer", "schedule")) is CosineSchedule
    assert section_at(RunConfig, values, ("optimizer", "learning_rate")) is None
    assert section_at(RunConfig, values, ("nothing",)) is None


def test_a_name_that_chooses_nothing_has_no_section():
    assert section_at(RunConfig, {"model": {"name": "lstm"}}, ("model",)) is None
    assert section_at(RunConfig, {"model": {}}, ("model",)) is None


def test_fields_of_the_chosen_variant():
    values = {"optimizer": {"name": "sgd", "schedule": {"name": "step"}}}
    assert field_at(RunConfig, values, ("optimizer", "momentum")) is not None
    assert field_at(RunConfig, values, ("optimizer", "beta_1")) is None
    assert (
        field_at(RunConfig, values, ("optimizer", "schedule", "boundaries")) is StepSchedule.model_fields["boundaries"]
    )
    assert field_at(RunConfig, values, ()) is None


def test_kinds():
    assert kind_of(FIELDS["warm_start"]).optional
    assert not kind_of(FIELDS["model"]).optional
    assert kind_of(FIELDS["optimizer"]).default_name == "adam"
    names = kind_of(FIELDS["data"]).names()
    assert {"mnist", "tfds:NAME", "package.module:function"} <= set(names)


def test_which_settings_are_text():
    def text(*location):
        return takes_text(RunConfig, {"data": {"name": "csv"}, "model": {"name": "mlp"}}, location)

    assert text("run", "name")
    assert text("precision")
    assert text("data", "held_out_path")
    assert not text("train", "steps")
    assert not text("model", "hidden")
    assert not text("nothing", "there")


def test_all_settings_cover_nested_variants():
    settings = set(all_settings(RunConfig))
    assert {"train.steps", "optimizer.schedule.end_factor", "data.batch_size", "model.heads", "precision"} <= settings
