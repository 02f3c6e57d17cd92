"""Ten minutes of damaged and hostile packages (`--chaos-long`; else seconds): no crash, no hang, none accepted."""

import os
import random
import shutil
import struct
import time
from pathlib import Path

import google_crc32c
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from delivery.package.file_kinds import check_contents
from delivery.package.manifest import parse_manifest
from delivery.package.refusal import PackageRefused
from delivery.package.signing_keys import create_key, read_keyring
from delivery.package.verification import verify
from delivery.package.warmup import WARMUP
from tests.chaos.exported_package import export_digits

_LONG_S, _SHORT_S = 600.0, 4.0
_MOST_S = 20.0  # that one check may take; the file that takes longest needs some hundredths
FORBIDDEN = ("ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "MatchingFiles", "TextLineDataset")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("fuzz")
    key = create_key(place / "keys", "fuzz")
    return export_digits(place, key), place / "keys"


def _damage(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 50))):
        place, kind = rng.randrange(len(damaged) + 1), rng.randrange(6)
        if kind == 0 and place < len(damaged):
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[place : place + rng.choice((1, 7, 1000))]
        elif kind == 2:
            damaged[place:place] = rng.randbytes(rng.choice((1, 9, 300)))
        elif kind == 3:
            damaged[place : place + 10] = rng.choice((b"\xff" * 10, b"\0" * 10, b"\x80" * 9 + b"\1"))
        elif kind == 4:
            other = rng.randrange(len(damaged) + 1)
            damaged[place : place + 40] = damaged[other : other + 40]
        else:
            damaged[place:place] = b"\x0a\x7f" * 200  # nested messages
    return bytes(damaged)


def _with_checksums(content: bytes) -> bytes:
    """A TFRecord file with these bytes as its only record: what is damaged must not end at the checksum."""

    def masked(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def _hostile(content: bytes, rng: random.Random) -> bytes:
    """The graph with one forbidden operation somewhere, in the saver's functions too: there the exemption ends."""
    model = saved_model_pb2.SavedModel.FromString(content)
    graph = model.meta_graphs[0].graph_def
    operation = rng.choice(FORBIDDEN)
    places = [graph.node, *(function.node_def for function in graph.library.function)]
    nodes = rng.choice(places)
    if rng.random() < 0.5 and nodes:
        rng.choice(nodes).op = operation
    else:
        nodes.add(name=f"n{rng.randrange(1 << 30)}", op=operation)
    return model.SerializeToString()


def test_contents_that_are_damaged_or_hostile(signed, chaos_long: bool):
    package, _ = signed
    seed = int(os.environ.get("PHALANX_CHAOS_SEED", time.time_ns()))
    print(f"seed {seed}")
    rng = random.Random(seed)
    good = {str(path.relative_to(package)): path.read_bytes() for path in package.rglob("*") if path.is_file()}
    good = {path: content for path, content in good.items() if not path.startswith(("variables", "manifest"))}
    record = good[WARMUP][12:][: struct.unpack("<Q", good[WARMUP][:8])[0]]
    end = time.monotonic() + (_LONG_S if chaos_long else _SHORT_S) / 2
    tried = refused = 0
    while time.monotonic() < end:
        tried += 1
        started = time.monotonic()
        if rng.random() < 0.3:
            content = _hostile(good["saved_model.pb"], rng)
            with pytest.raises(PackageRefused, match="holds the operation"):
                check_contents({**good, "saved_model.pb": content})
            continue
        path = rng.choice(sorted(good))
        content = _with_checksums(_damage(record, rng)) if path == WARMUP else _damage(good[path], rng)
        try:
            scanned = check_contents({**good, path: content})
        except PackageRefused as refusal:
            refused += 1
            assert str(refusal).isprintable(), repr(str(refusal))
        else:
            assert not set(FORBIDDEN) & set(scanned.operations)
        assert time.monotonic() - started < _MOST_S
    print(f"{tried} tried, {refused} damaged ones refused")
    assert tried > 20


def test_signed_folders_that_are_changed_are_never_accepted(signed, chaos_long: bool, tmp_path: Path):
    package, keys = signed
    seed = int(os.environ.get("PHALANX_CHAOS_SEED", time.time_ns()))
    print(f"seed {seed}")
    rng, keyring = random.Random(seed), read_keyring(keys)
    files = sorted(path.relative_to(package) for path in package.rglob("*") if path.is_file())
    end = time.monotonic() + (_LONG_S if chaos_long else _SHORT_S) / 2
    tried = 0
    while time.monotonic() < end:
        tried += 1
        changed = tmp_path / "package"
        shutil.copytree(package, changed)
        path = changed / rng.choice(files)
        content = path.read_bytes()
        damaged = _damage(content, rng)
        path.write_bytes(damaged)
        if damaged == content:
            verify(changed, keyring)
        else:
            try:
                verify(changed, keyring)
            except PackageRefused as refusal:
                assert str(refusal).isprintable(), repr(str(refusal))
            else:
                # The signature's own file may be written otherwise and say the same; nothing else may change.
                assert path.name == "manifest.sig"
        if path.name == "manifest.json":
            try:
                parse_manifest(damaged)
            except PackageRefused as refusal:
                assert str(refusal).isprintable(), repr(str(refusal))
        shutil.rmtree(changed)
    print(f"{tried} tried")
    assert tried > 10
