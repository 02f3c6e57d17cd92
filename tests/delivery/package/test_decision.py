from delivery.package.decision import decision_of
from delivery.package.model_card import card_text
from trainer.config.task import ClassificationTask
from trainer.data.source import Feature, Schema
from trainer.tasks.registry import build_task

SCHEMA = Schema({"amount": Feature((), "float32"), "label": Feature((), "int32")}, "label", 10, 2, ("fraud", "honest"))
EVALUATION = {"auc": 0.9, "threshold": 0.7, "threshold_precision": 0.91, "threshold_recall": 0.5}


def test_an_export_names_the_class_and_the_threshold_that_was_calibrated():
    task = build_task(ClassificationTask(positive="fraud"), SCHEMA)
    expected = {"class": "fraud", "threshold": 0.7, "precision": 0.91, "recall": 0.5}
    assert decision_of(task, SCHEMA, EVALUATION) == {"decision": expected}
    assert decision_of(task, SCHEMA, {"auc": 0.9}) == decision_of(task, SCHEMA, None) == {}
    assert decision_of(task, SCHEMA, {**EVALUATION, "threshold": None}) == {}


def test_the_model_card_says_from_where_on_a_sample_counts():
    card = {
        "name": "m",
        "version": 1,
        "created": "",
        "model": dict.fromkeys(("model", "task", "step", "run", "weights", "precision"), "x"),
        "data": {"name": "d", "training_samples": 1, "held_out_samples": 1, "target": "label", "features": {}},
        "signatures": {},
        "evaluation": None,
        "decision": {"class": "fr*ud", "threshold": 0.68612, "precision": 0.9012, "recall": None},
        "held_out": {"samples": 1},
        "limits": [],
        "environment": {"python": "", "packages": {}, "system": ""},
    }
    assert r"counts as fr\*ud from the probability 0.6861 on" in card_text(card)
    assert "its precision is 0.9012 and its recall -." in card_text(card)
