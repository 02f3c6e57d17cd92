"""Packages that made-up hands have changed: refused, unless nothing that matters is another."""

import base64
import json
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from delivery.package.file_kinds import check_contents
from delivery.package.graph_scan import SAVED_MODEL, scan_saved_model
from delivery.package.manifest import MANIFEST, SIGNATURE, sign_manifest
from delivery.package.op_list import ALLOWED_OPS, SAVER_OPS
from delivery.package.refusal import PackageRefused
from delivery.package.signing_keys import read_keyring, read_signing_key
from delivery.package.verification import verified_copy, verify
from tests.delivery.fuzz.damage import edited, messages
from tests.delivery.fuzz.rounds import Rounds

Tree = dict[str, tuple[str, bytes]]
FORBIDDEN = ("ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "PrintV2", "MatchingFiles", "TextLineDataset", "Unheard")


def tree_of(folder: Path) -> Tree:
    """Kind and content of every entry below a folder."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = os.fsencode(os.readlink(path)) if stat.S_ISLNK(mode) else b""
        found[str(path.relative_to(folder))] = (
            oct(stat.S_IFMT(mode)),
            path.read_bytes() if stat.S_ISREG(mode) else content,
        )
    return found


NAMES = (
    SAVED_MODEL, MANIFEST, SIGNATURE, "fingerprint.pb", "variables/variables.index", "assets.extra/phalanx.json",
    "variables/variables.data-00000-of-00001", "variables/variables.data-00001-of-00002", "assets.extra/model_card.md",
    "assets.extra/tf_serving_warmup_requests", "assets/words.txt", "keras_metadata.pb", "saved_model.pbtxt", ".hidden",
    "variables", "assets.extra", "a/b/c/d/e/f/g/h/i/j", "saved_model.pb ", "Saved_model.pb", "\u202esaved_model.pb",
    "x\n", "\udcff",
)  # fmt: skip
deeds = st.tuples(
    st.sampled_from(("flip", "cut", "append", "write", "remove", "move", "swap", "link", "pipe", "socket", "folder")),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.integers(0, 1 << 16),
    st.binary(min_size=1, max_size=8),
)


def do(package: Path, deed: tuple[str, str, str, int, bytes]) -> None:
    """Changes a package, as far as the file system lets it."""
    what, name, other, number, some = deed
    path, second = package / name, package / other
    try:
        if what in ("flip", "append", "write", "swap") and (path.is_fifo() or second.is_fifo()):
            return  # to open a pipe waits for whoever is at its other end
        match what:
            case "flip":
                content = bytearray(path.read_bytes())
                content[number % len(content)] ^= some[0] or 1
                path.write_bytes(content)
            case "cut":
                os.truncate(path, number % (path.stat().st_size + 1))
            case "append":
                with path.open("ab") as file:
                    file.write(some)
            case "write":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(some)
            case "remove":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            case "move":
                os.replace(path, second)
            case "swap":
                one, two = path.read_bytes(), second.read_bytes()
                path.write_bytes(two)
                second.write_bytes(one)
            case "link":
                kept = package.parent / f"kept-{number}"
                if path.exists():
                    os.replace(path, kept)
                path.symlink_to(kept)
            case "pipe":
                path.unlink(missing_ok=True)
                os.mkfifo(path)
            case "socket":
                with socket.socket(socket.AF_UNIX) as door:
                    path.unlink(missing_ok=True)
                    door.bind(str(path))
            case "folder":
                path.mkdir(parents=True)
    except (OSError, ValueError, ZeroDivisionError):
        pass  # there is no such file, or it is a folder: the others of the list are done


def check_sentence(refused: PackageRefused) -> None:
    assert str(refused).isprintable() and len(str(refused)) < 2000 and refused.rule


def test_changed_packages(exported_run, rounds: Rounds, tmp_path: Path):
    good, keys = tree_of(exported_run.package), read_keyring(exported_run.keys)
    signature = json.loads(good[SIGNATURE][1])
    base = tmp_path / "x"

    def check(changes: list[tuple[str, str, str, int, bytes]]) -> None:
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        package, copy = base / "package", base / "copy"
        shutil.copytree(exported_run.package, package)
        for change in changes:
            do(package, change)
        for call in (lambda: verify(package, keys), lambda: verified_copy(package, keys, copy)):
            try:
                call()
            except PackageRefused as refused:
                check_sentence(refused)
                assert tree_of(package) != good and not copy.exists()
                continue
            for path in (package, copy) if copy.exists() else (package,):
                found = tree_of(path)
                fields = json.loads(found.pop(SIGNATURE)[1])  # other spaces between its fields say the same
                assert found == {name: entry for name, entry in good.items() if name != SIGNATURE}
                assert base64.b64decode(fields["signature"]) == base64.b64decode(signature["signature"])

    check([])
    rounds.run("package_changed", check, st.lists(deeds, min_size=1, max_size=3), 40)


words = st.sampled_from(
    ("", "digits", "../x", "/etc/passwd", "saved_model.pb", "2026-01-01T00:00:00Z", "\ud800", "a\0b")
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(2**63), st.floats(), words, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


def test_hostile_manifests_that_a_trusted_key_has_signed(exported_run, rounds: Rounds, tmp_path: Path):
    package = tmp_path / "package"
    shutil.copytree(exported_run.package, package)
    key, keys = read_signing_key(exported_run.private_key), read_keyring(exported_run.keys)
    content = (package / MANIFEST).read_bytes()
    fields = json.loads(content)

    def check(manifest: bytes) -> None:
        (package / MANIFEST).write_bytes(manifest)
        (package / SIGNATURE).write_bytes(sign_manifest(manifest, key))
        try:
            verified = verify(package, keys)
        except PackageRefused as refused:
            check_sentence(refused)
            assert manifest != content
            return
        said = json.loads(manifest)
        assert said["files"] == fields["files"] and said["key"] == fields["key"] and set(said) == set(fields)
        assert said["version"] == verified.manifest.version and verified.manifest.version >= 1
        assert said["name"] == verified.manifest.name and not set(said["name"]) & set("/\\\0 \n")

    def put(place: tuple[str, ...], value: Any) -> bytes:
        changed = json.loads(content)
        inner = changed
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
        return json.dumps(changed).encode()

    file = sorted(fields["files"])[0]
    places = [(name,) for name in (*fields, "more")] + [("files", file), ("files", "../x"), ("files", file, "size")]
    places += [("files", file, "sha256"), ("files", file, "more"), ("files", MANIFEST)]
    check(content)
    rounds.run(
        "manifest_signed",
        check,
        st.one_of(
            st.tuples(st.sampled_from(places), anything).map(lambda it: put(*it)),
            edited(content),
            anything.map(lambda value: json.dumps(value).encode()),
            st.binary(max_size=16),
            st.sampled_from((b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, content + content, b"\xff\xfe{}")),
        ),
        60,
    )


def operations(content: bytes) -> set[str]:
    """Every operation that any node of a SavedModel names."""
    found = set()
    for meta_graph in saved_model_pb2.SavedModel.FromString(content).meta_graphs:
        graph = meta_graph.graph_def
        for nodes in [graph.node, *(function.node_def for function in graph.library.function)]:
            found |= {node.op for node in nodes}
    return found


def planted(content: bytes, place: int, name: str, node: Any) -> bytes:
    """The model with one more node, in the graph or in one of its functions."""
    model = saved_model_pb2.SavedModel.FromString(content)
    graph = model.meta_graphs[0].graph_def
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    into = bodies[place % len(bodies)]
    into.add().CopyFrom(node)
    into[-1].op = name
    return model.SerializeToString()


def test_hostile_saved_models(exported_run, rounds: Rounds):
    content = (exported_run.package / SAVED_MODEL).read_bytes()

    def check(example: tuple[str, bytes]) -> None:
        deed, model = example
        try:
            scanned = scan_saved_model(model)
        except PackageRefused as refused:
            check_sentence(refused)
            return
        assert deed != "planted"
        assert operations(model) == set(scanned.operations) and set(scanned.operations) <= ALLOWED_OPS | SAVER_OPS

    def merged(more: Any) -> bytes:
        model = saved_model_pb2.SavedModel.FromString(content)
        model.MergeFrom(more)
        return model.SerializeToString()

    ops = ("Const", "Identity", "StatefulPartitionedCall", "RestoreV2", "SaveV2", *FORBIDDEN)
    check(("as it is", content))
    nodes = messages(node_def_pb2.NodeDef, ("x", "Const", "f", "value"))
    rounds.run(
        "saved_model",
        check,
        st.one_of(
            st.tuples(st.just("edited"), edited(content)),
            st.tuples(st.just("merged"), messages(saved_model_pb2.SavedModel, ops).map(merged)),
            st.tuples(
                st.just("planted"),
                st.tuples(st.integers(0, 99), st.sampled_from(FORBIDDEN), nodes).map(lambda it: planted(content, *it)),
            ),
        ),
        50,
    )


def test_damaged_files_that_a_trusted_key_has_signed(exported_run, rounds: Rounds):
    package = exported_run.package
    files = [path for path in sorted(package.rglob("*")) if path.is_file() and path.parent.name != "variables"]
    contents = {str(path.relative_to(package)): path.read_bytes() for path in files if path.name != SIGNATURE}

    def check(example: tuple[str, bytes]) -> None:
        name, content = example
        try:
            scanned = check_contents({**contents, name: content})
        except PackageRefused as refused:
            check_sentence(refused)
            return
        assert set(scanned.operations) <= ALLOWED_OPS | SAVER_OPS

    check((MANIFEST, contents[MANIFEST]))
    rounds.run(
        "files_signed",
        check,
        st.one_of([st.tuples(st.just(name), edited(content)) for name, content in contents.items()]),
        30,
    )
