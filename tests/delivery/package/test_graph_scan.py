"""Models that do more than compute: each is refused by its protobuf alone, however it is hidden."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from delivery.package.file_kinds import check_contents
from delivery.package.graph_scan import scan_saved_model
from delivery.package.refusal import PackageRefused
from delivery.package.saver_functions import saver_functions
from delivery.package.sealing import seal
from delivery.package.signing_keys import read_signing_key
from delivery.package.verification import verify
from delivery.package.warmup import WARMUP, check_warmup

BODIES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "ReadFile": lambda x: x + tf.strings.to_number(tf.io.read_file("/etc/hostname")),
    "WriteFile": lambda x: _after(tf.io.write_file("/tmp/phalanx-never-written", "x"), x),
    "MatchingFiles": lambda x: x + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32),
    "EagerPyFunc": lambda x: tf.py_function(lambda y: y, [x], tf.float32),
    "PyFunc": lambda x: tf.numpy_function(lambda y: y, [x], tf.float32),
    "TextLineDataset": lambda x: _after(
        tf.raw_ops.TextLineDataset(filenames=["/etc/hostname"], compression_type="", buffer_size=0), x
    ),
    "PrintV2": lambda x: _after(tf.print(x, output_stream="file:///tmp/phalanx-never-written"), x),
    "RestoreV2": lambda x: (
        x + tf.raw_ops.RestoreV2(prefix="/etc/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]
    ),
    "SaveV2": lambda x: _after(
        tf.raw_ops.SaveV2(prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], tensors=[x]), x
    ),
}


def _after(first, x):
    with tf.control_dependencies([first] if first is not None else []):
        return tf.identity(x)


def _save(body: Callable, place: Path, nested: bool = False) -> bytes:
    class Model(tf.Module):
        def __init__(self):
            self.weight = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def serve(self, x):
            if nested:
                inner = tf.function(lambda y: tf.cond(tf.reduce_sum(y) > 1e9, lambda: body(y), lambda: y))
                return {"y": tf.while_loop(lambda i, _: i < 1, lambda i, y: (i + 1, inner(y)), [0, x * self.weight])[1]}
            return {"y": body(x * self.weight)}

    model = Model()
    tf.saved_model.save(model, str(place), signatures=model.serve)
    return (place / "saved_model.pb").read_bytes()


@pytest.mark.parametrize("operation", BODIES)
def test_an_operation_that_is_not_on_the_list_is_named_with_its_place(operation: str, tmp_path: Path):
    with pytest.raises(
        PackageRefused, match=rf"holds the operation {operation} in function \w+, node [\w/]+, which is"
    ):
        scan_saved_model(_save(BODIES[operation], tmp_path))


def test_a_branch_inside_a_loop_inside_a_function_is_looked_into(tmp_path: Path):
    with pytest.raises(PackageRefused, match="holds the operation ReadFile in function"):
        scan_saved_model(_save(BODIES["ReadFile"], tmp_path, nested=True))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A harmless model with a variable."""
    return _save(lambda x: x * 2, tmp_path_factory.mktemp("plain"))


@pytest.fixture
def model(plain: bytes) -> saved_model_pb2.SavedModel:
    return saved_model_pb2.SavedModel.FromString(plain)


def _functions(model) -> dict:
    return {function.signature.name: function for function in model.meta_graphs[0].graph_def.library.function}


def _saver(model, part: str):
    return next(function for name, function in _functions(model).items() if part in name)


def test_a_harmless_model_passes_and_only_the_savers_functions_are_exempted(model):
    scanned = scan_saved_model(model.SerializeToString())
    assert {"RestoreV2", "SaveV2", "MergeV2Checkpoints"} < set(scanned.operations)
    assert saver_functions(model.meta_graphs[0]) == {
        _saver(model, "traced_save").signature.name,
        _saver(model, "traced_restore").signature.name,
    }


def test_the_savers_functions_are_told_by_what_they_do_not_by_name(model):
    """Other names change nothing for the real ones."""
    for part, new in (("traced_save", "a"), ("traced_restore", "b")):
        function = _saver(model, part)
        old, function.signature.name = function.signature.name, new
        for node in model.meta_graphs[0].graph_def.node:
            if node.attr["f"].func.name == old:
                node.attr["f"].func.name = new
    scan_saved_model(model.SerializeToString())


def _named_alike(model) -> None:
    """A function that reads a file, called as the saver's are."""
    function = model.meta_graphs[0].graph_def.library.function.add()
    function.CopyFrom(_saver(model, "traced_restore"))
    function.signature.name = "__inference__traced_restore_999999"


def _second_caller(model) -> None:
    graph = model.meta_graphs[0]
    name = _saver(model, "traced_restore").signature.name
    call = graph.graph_def.node.add(name="again", op="StatefulPartitionedCall")
    call.attr["f"].func.name = name


def _called_by_a_function(model) -> None:
    name = _saver(model, "traced_restore").signature.name
    inner = next(f for n, f in _functions(model).items() if "serve" in n)
    inner.node_def.add(name="again", op="StatefulPartitionedCall").attr["f"].func.name = name


def _called_as_operation(model) -> None:
    inner = next(f for n, f in _functions(model).items() if "serve" in n)
    inner.node_def.add(name="again", op=_saver(model, "traced_restore").signature.name)


def _constant_path(model) -> None:
    function = _saver(model, "traced_restore")
    path = function.node_def.add(name="path", op="Const")
    path.attr["value"].tensor.dtype = 7
    path.attr["value"].tensor.string_val.append(b"/etc/shadow")
    restore = next(node for node in function.node_def if node.op == "RestoreV2")
    restore.input[0] = "path:output:0"


def _constant_target(model) -> None:
    function = _saver(model, "traced_save")
    join = next(node for node in function.node_def if node.op == "StringJoin")
    path = function.node_def.add(name="path", op="Const")
    path.attr["value"].tensor.dtype = 7
    path.attr["value"].tensor.string_val.append(b"/tmp/x")
    join.input[0] = "path:output:0"


def _other_ending(model) -> None:
    function = _saver(model, "traced_save")
    for node in function.node_def:
        if node.op == "Const" and node.attr["value"].tensor.string_val[:1] == [b".part"]:
            node.attr["value"].tensor.string_val[0] = b"/../../etc/cron.d/x"


def _more_in_it(model) -> None:
    _saver(model, "traced_save").node_def.add(name="more", op="ReadFile")


def _constant_filename(model) -> None:
    for node in model.meta_graphs[0].graph_def.node:
        if node.name == "saver_filename":
            node.op = "Const"


def _signature_leads_there(model) -> None:
    graph = model.meta_graphs[0]
    graph.signature_def["write"].inputs["path"].name = graph.saver_def.filename_tensor_name
    graph.signature_def["write"].outputs["done"].name = graph.saver_def.save_tensor_name


def _read_by_another_node(model) -> None:
    graph = model.meta_graphs[0]
    graph.graph_def.node.add(name="path", op="Identity").input.append("saver_filename")


def _object_calls_it(model) -> None:
    name = _saver(model, "traced_restore").signature.name
    model.meta_graphs[0].object_graph_def.concrete_functions[name].bound_inputs.append(0)


def _path_from_elsewhere(model) -> None:
    graph = model.meta_graphs[0]
    for node in graph.graph_def.node:
        if node.name == graph.saver_def.restore_op_name:
            node.input[0] = "other"
    graph.graph_def.node.add(name="other", op="Placeholder")


@pytest.mark.parametrize(
    "trick",
    [
        _named_alike,
        _second_caller,
        _called_by_a_function,
        _called_as_operation,
        _constant_path,
        _constant_target,
        _other_ending,
        _more_in_it,
        _constant_filename,
        _signature_leads_there,
        _read_by_another_node,
        _object_calls_it,
        _path_from_elsewhere,
    ],
)
def test_no_trick_gets_a_function_exempted(trick: Callable, model):
    trick(model)
    with pytest.raises(PackageRefused, match="holds the operation"):
        scan_saved_model(model.SerializeToString())


def _registered_class(model) -> None:
    model.meta_graphs[0].object_graph_def.nodes[1].registered_name = "keras.Lambda"


def _keras_object(model) -> None:
    node = model.meta_graphs[0].object_graph_def.nodes[0]
    node.user_object.identifier, node.user_object.metadata = "_tf_keras_model", '{"class_name": "Lambda"}'


def _asset_object(model) -> None:
    model.meta_graphs[0].object_graph_def.nodes.add().asset.asset_file_def_index = 0


def _asset_file(model) -> None:
    model.meta_graphs[0].asset_file_def.add(filename="../../etc/passwd")


def _queue_runner(model) -> None:
    model.meta_graphs[0].collection_def["queue_runners"].bytes_list.value.append(b"x")


def _missing_function(model) -> None:
    node = model.meta_graphs[0].graph_def.node.add(name="call", op="PartitionedCall")
    node.attr["f"].func.name = "elsewhere"


def _function_in_a_list(model) -> None:
    node = model.meta_graphs[0].graph_def.node.add(name="call", op="Case")
    node.attr["branches"].list.func.add(name="elsewhere")


def _function_twice(model) -> None:
    library = model.meta_graphs[0].graph_def.library
    library.function.add().CopyFrom(library.function[0])


def _huge_constant(model) -> None:
    node = model.meta_graphs[0].graph_def.node.add(name="big", op="Const")
    for size in (1 << 20, 1 << 20):
        node.attr["value"].tensor.tensor_shape.dim.add(size=size)


def _second_graph(model) -> None:
    graph = model.meta_graphs.add()
    graph.graph_def.node.add(name="x", op="ReadFile")


@pytest.mark.parametrize(
    ("trick", "rule"),
    [
        (_registered_class, "object"),
        (_keras_object, "object"),
        (_asset_object, "object"),
        (_asset_file, "asset"),
        (_queue_runner, "collection"),
        (_missing_function, "function"),
        (_function_in_a_list, "function"),
        (_function_twice, "function"),
        (_huge_constant, "size"),
        (_second_graph, "operation"),
    ],
)
def test_what_a_loader_might_act_on_is_refused(trick: Callable, rule: str, model):
    trick(model)
    with pytest.raises(PackageRefused) as refused:
        scan_saved_model(model.SerializeToString())
    assert refused.value.rule == rule


def test_a_harmful_model_is_refused_although_it_is_signed(exported_run, package: Path, tmp_path: Path):
    _save(BODIES["ReadFile"], tmp_path / "evil")
    for part in ("saved_model.pb", "fingerprint.pb"):
        shutil.copy(tmp_path / "evil" / part, package / part)
    seal(package, "digits", 1, read_signing_key(exported_run.private_key))
    with pytest.raises(PackageRefused, match="holds the operation ReadFile"):
        verify(package, exported_run.keys)


def _session_run(log) -> None:
    log.session_run_log.request.model_spec.name = "digits"


def _unknown_signature(log) -> None:
    log.predict_log.request.model_spec.signature_name = "elsewhere"


def _unknown_input(log) -> None:
    log.predict_log.request.inputs["saver_filename"].string_val.append(b"/tmp/x")


def _unknown_output(log) -> None:
    log.predict_log.request.output_filter.append("StatefulPartitionedCall_1:0")


def _huge_tensor(log) -> None:
    log.predict_log.request.inputs["image"].tensor_shape.dim.add(size=1 << 40)


def _other_type(log) -> None:
    log.predict_log.request.inputs["image"].dtype = 20


@pytest.mark.parametrize(
    "trick", [_session_run, _unknown_signature, _unknown_input, _unknown_output, _huge_tensor, _other_type]
)
def test_warm_up_may_only_predict(trick: Callable, exported_run, tmp_path: Path):
    scanned = scan_saved_model((exported_run.package / "saved_model.pb").read_bytes())
    good = (exported_run.package / WARMUP).read_bytes()
    assert check_warmup(good, scanned.signatures) == 9
    log = prediction_log_pb2.PredictionLog.FromString(
        next(iter(tf.data.TFRecordDataset(str(exported_run.package / WARMUP)))).numpy()
    )
    trick(log)
    with tf.io.TFRecordWriter(str(tmp_path / "warmup")) as file:
        file.write(log.SerializeToString())
    with pytest.raises(PackageRefused, match=r"tf_serving_warmup_requests has a request 1 "):
        check_warmup((tmp_path / "warmup").read_bytes(), scanned.signatures)


@pytest.fixture(scope="module")
def contents(exported_run) -> dict[str, bytes]:
    package = exported_run.package
    return {
        str(path.relative_to(package)): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and path.parent.name != "variables" and not path.name.startswith("manifest")
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_harmless_and_never_a_crash(data, contents: dict[str, bytes]):
    check_contents(contents)
    name = data.draw(st.sampled_from(sorted(contents)))
    content = bytearray(contents[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "replace"])):
            case "flip" if place < len(content):
                content[place] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 200))]
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
            case _:
                content[place : place + 8] = data.draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, b"ReadFile"]))
    try:
        scanned = check_contents({**contents, name: bytes(content)})
    except PackageRefused as refused:
        assert str(refused).isprintable() and name in str(refused)
    else:
        assert "ReadFile" not in scanned.operations
