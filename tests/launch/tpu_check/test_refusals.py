"""Messages of XLA, in the form in which they come, and what is made of them."""

import pytest

from launch.exit_code import RequestError
from launch.tpu_check.chips import CHIPS, chip_of
from launch.tpu_check.compiler import check_installed
from launch.tpu_check.refusals import refusal_of

UNSUPPORTED = (
    "Failed getting HLO text: 'Detected unsupported operations when trying to compile graph while_body_9[] on "
    "XLA_CPU_JIT: LookupTableFindV2 (No registered 'LookupTableFindV2' OpKernel for XLA_CPU_JIT devices compatible "
    "with node {{node while/words_1/LookupTableFindV2}}){{node while/words_1/LookupTableFindV2}}\n"
    'File "home/me/my_package/models.py", line 12, in build\n'
    'File "site-packages/keras/src/layers/layer.py", line 1002, in __call__\n'
    "\ttf2xla conversion failed while converting while_body_9[]."
)
TOO_MUCH = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (838.28G) exceeds available HBM (7.48G). HLO module: a_inference_f_7__.1."
)


def test_an_operation_is_named_with_its_layer_and_its_line():
    refusal = refusal_of(UNSUPPORTED, ["hidden", "words"])
    assert (refusal.layer, refusal.operation) == ("words", "LookupTableFindV2")
    assert refusal.sentence == (
        "the layer words uses LookupTableFindV2 (models.py, line 12), which a TPU does not have: look up in the data, "
        "or use keras.layers.Embedding on numbers"
    )


def test_an_operation_outside_of_the_layers_keeps_the_name_of_its_node():
    assert refusal_of(UNSUPPORTED, []).sentence.startswith("the node while/words_1/LookupTableFindV2 uses")


def test_too_little_memory_is_no_fault_of_a_layer():
    refusal = refusal_of(TOO_MUCH, ["hidden"])
    assert refusal.layer is None
    assert refusal.needed == int(838.28 * 2**30)


def test_an_unknown_message_is_passed_on():
    refusal = refusal_of("INTERNAL: something new\nat length", ["hidden"])
    assert "INTERNAL: something new" in refusal.sentence


@pytest.mark.parametrize("topology", ["v5e", "v5e:", "v5e:2x", "v5e:0x2", "v9:2x2", "2x2"])
def test_a_topology_without_the_form_of_one_is_refused(topology):
    with pytest.raises(
        ValueError, match=rf"--tpu {topology} must be a generation and the shape of a slice: .* v5e:2x2"
    ):
        chip_of(topology)


def test_every_example_is_a_topology():
    assert [chip_of(chip.example).name for chip in CHIPS.values()] == list(CHIPS)


def test_an_absent_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"jax and libtpu are not installed: pip install 'phalanx\[tpu-check\]'"):
        check_installed()
