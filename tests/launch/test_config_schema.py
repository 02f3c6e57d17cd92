from launch.config_schema import json_schema

SCHEMA = json_schema()


def resolve(reference):
    return SCHEMA["$defs"][reference["$ref"].rpartition("/")[2]]


def test_every_section_is_there_and_closed():
    assert {"run", "model", "task", "data", "train", "optimizer", "cluster"} <= SCHEMA["properties"].keys()
    assert SCHEMA["additionalProperties"] is False
    assert all(section.get("additionalProperties") is False for section in SCHEMA["$defs"].values())


def test_a_section_chosen_by_name_offers_each_name_once():
    variants = [resolve(item) for item in SCHEMA["properties"]["model"]["oneOf"]]
    names = [variant["properties"]["name"].get("const") for variant in variants]
    assert names == [
        "mlp",
        "cnn",
        "resnet",
        "efficientnet_v2",
        "mobilenet_v3",
        "convnext",
        "vit",
        "unet",
        "tabular",
        "wide_and_deep",
        "dcn",
        "two_tower",
        "dlrm",
        "transformer_lm",
        "bert",
        "tcn",
        "transformer_forecaster",
        None,
    ]
    assert all("name" in variant["required"] for variant in variants)
    assert variants[-1]["properties"]["name"]["pattern"]


def test_nested_choices_are_there_too():
    optimizer = resolve(SCHEMA["properties"]["optimizer"]["oneOf"][0])
    schedules = [resolve(item)["properties"]["name"]["const"] for item in optimizer["properties"]["schedule"]["oneOf"]]
    assert schedules == ["constant", "cosine", "linear", "step"]


def test_settings_are_described_for_the_editor():
    train = resolve(SCHEMA["properties"]["train"])
    assert all("description" in setting for setting in train["properties"].values())
