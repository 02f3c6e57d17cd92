"""Packages that somebody has changed: each is refused, by a sentence that names the file and the rule."""

import json
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from delivery.package import verification
from delivery.package.sealing import seal, sign
from delivery.package.signing_keys import create_key, read_keyring, read_signing_key
from delivery.package.verification import PackageRefused, verified_copy, verify


def _flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _rename(package: Path) -> None:
    os.rename(package / "assets.extra/model_card.md", package / "assets.extra/phalanx.md")


def _swap(package: Path) -> None:
    one, two = package / "assets.extra/model_card.json", package / "assets.extra/phalanx.json"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _link_file(package: Path) -> None:
    outside = package.parent / "outside"
    shutil.copy(package / "fingerprint.pb", outside)
    (package / "fingerprint.pb").unlink()
    (package / "fingerprint.pb").symlink_to(outside)


def _link_folder(package: Path) -> None:
    outside = package.parent / "variables"
    os.rename(package / "variables", outside)
    (package / "variables").symlink_to(outside)


def _socket(package: Path) -> None:
    at = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(package)  # the path of a socket may have 107 bytes
    try:
        at.bind("door")
    finally:
        os.chdir(here)
        at.close()


def _edit_manifest(package: Path) -> None:
    fields = json.loads((package / "manifest.json").read_text())
    fields["version"] = 2
    (package / "manifest.json").write_text(json.dumps(fields))


def _make(name: str, content: bytes = b"x") -> Callable[[Path], object]:
    def make(package: Path) -> None:
        place = package / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    return make


CHANGES: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    # what was done: how, the rule, the file, a part of the sentence
    "flipped byte of the weights": (
        lambda p: _flip(p / "variables/variables.data-00000-of-00001"),
        "changed",
        "variables/variables.data-00000-of-00001",
        "is not the file that was signed",
    ),
    "flipped byte of the graph": (
        lambda p: _flip(p / "saved_model.pb", 99),
        "changed",
        "saved_model.pb",
        "another hash",
    ),
    "longer file": (lambda p: (p / "saved_model.pb").open("ab").write(b"\0"), "changed", "saved_model.pb", "bytes"),
    "added listed kind": (
        _make("variables/variables.data-00001-of-00002"),
        "added",
        "variables/variables.data-00001-of-00002",
        "not listed",
    ),
    "added foreign kind": (_make("assets.extra/run.sh"), "kind", "assets.extra/run.sh", "no kind of file"),
    "other form of the graph": (_make("saved_model.pbtxt"), "kind", "saved_model.pbtxt", "no kind of file"),
    "chunked form of the graph": (_make("saved_model.cpb"), "kind", "saved_model.cpb", "no kind of file"),
    "asset": (_make("assets/names.txt"), "kind", "assets/names.txt", "no kind of file"),
    "keras metadata": (_make("keras_metadata.pb"), "kind", "keras_metadata.pb", "no kind of file"),
    "hidden file": (_make(".hidden"), "kind", ".hidden", "no kind of file"),
    "missing file": (lambda p: (p / "fingerprint.pb").unlink(), "missing", "fingerprint.pb", "removed or renamed"),
    "missing graph": (lambda p: (p / "saved_model.pb").unlink(), "missing", "saved_model.pb", "is no package"),
    "renamed file": (_rename, "kind", "assets.extra/phalanx.md", "no kind of file"),
    "two files swapped": (_swap, "changed", "assets.extra/model_card.json", "bytes"),
    "file as symbolic link": (_link_file, "kind", "fingerprint.pb", "is a symbolic link"),
    "folder as symbolic link": (_link_folder, "kind", "variables", "is a symbolic link"),
    "dangling link": (lambda p: (p / "x").symlink_to("nowhere"), "kind", "x", "is a symbolic link"),
    "empty folder": (lambda p: (p / "assets").mkdir(), "empty_folder", "assets", "is an empty folder"),
    "nested empty folder": (lambda p: (p / "a/b").mkdir(parents=True), "empty_folder", "a/b", "is an empty folder"),
    "named pipe": (lambda p: os.mkfifo(p / "pipe"), "kind", "pipe", "is a named pipe"),
    "pipe in a file's place": (
        lambda p: ((p / "fingerprint.pb").unlink(), os.mkfifo(p / "fingerprint.pb")),
        "kind",
        "fingerprint.pb",
        "is a named pipe",
    ),
    "socket": (_socket, "kind", "door", "is a socket"),
    "name with a space behind": (_make("saved_model.pb "), "name", "'saved_model.pb '", "holds more than letters"),
    "name with a cyrillic letter": (_make("s\u0430ved_model.pb"), "name", "'s\\u0430ved_model.pb'", "holds more"),
    "name that turns the direction": (_make("model\u202ebp.pb"), "name", "'model\\u202ebp.pb'", "holds more"),
    "name with no width": (_make("saved_model\u200b.pb"), "name", "'saved_model\\u200b.pb'", "holds more"),
    "name of a terminal's commands": (_make("\x1b[2Jx"), "name", "'\\x1b[2Jx'", "holds more"),
    "name of a new line": (_make("a\nb"), "name", "'a\\nb'", "holds more"),
    "name that is no text": (
        lambda p: open(os.fsencode(p) + b"/\xff", "wb").close(),
        "name",
        "\\xff",
        "holds more",
    ),
    "manifest edited": (_edit_manifest, "signature", "manifest.json", "is not what the key release"),
    "manifest reformatted": (
        lambda p: (p / "manifest.json").write_bytes((p / "manifest.json").read_bytes() + b"\n"),
        "signature",
        "manifest.json",
        "is not what the key release",
    ),
    "manifest gone": (lambda p: (p / "manifest.json").unlink(), "missing", "manifest.json", "is missing"),
    "no signature": (lambda p: (p / "manifest.sig").unlink(), "unsigned", "manifest.sig", "the package is not signed"),
    "empty signature": (_make("manifest.sig", b""), "signature", "manifest.sig", "is no signature"),
    "signature of zeros": (
        lambda p: (p / "manifest.sig").write_text(
            json.dumps({**json.loads((p / "manifest.sig").read_text()), "signature": "A" * 86 + "=="})
        ),
        "signature",
        "manifest.json",
        "is not what the key",
    ),
    "huge signature": (_make("manifest.sig", b" " * (5 << 20)), "size", "manifest.sig", "more than"),
    "resealed without a key": (lambda p: seal(p, "digits", 1), "unsigned", "manifest.sig", "is not signed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_package_is_refused_with_file_and_rule(change: str, package: Path, exported_run):
    do, rule, file, sentence = CHANGES[change]
    verify(package, exported_run.keys)  # good until then
    do(package)
    with pytest.raises(PackageRefused) as refused:
        verify(package, exported_run.keys)
    assert (refused.value.rule, refused.value.file) == (rule, file)
    assert sentence in str(refused.value) and str(refused.value).isprintable()
    with pytest.raises(PackageRefused):
        verified_copy(package, exported_run.keys, package.parent / "copy")
    assert not (package.parent / "copy").exists()


def test_a_device_is_refused(package: Path, exported_run):
    try:
        os.mknod(package / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs the right to make devices")
    with pytest.raises(PackageRefused, match="null is a character device"):
        verify(package, exported_run.keys)


def test_the_package_itself_may_not_be_a_link(package: Path, exported_run):
    link = package.parent / "link"
    link.symlink_to(package)
    with pytest.raises(PackageRefused, match="is a symbolic link: a package is a folder"):
        verify(link, exported_run.keys)


def test_keys_wrong_expired_and_rotated(package: Path, exported_run, tmp_path: Path):
    stranger = create_key(tmp_path / "strangers", "stranger")
    with pytest.raises(PackageRefused, match=r"of the key \w+, which is not trusted here: stranger"):
        verify(package, tmp_path / "strangers")

    soon = datetime.now(timezone.utc) + timedelta(days=30)
    create_key(tmp_path / "new", "next", expires=soon)
    sign(package, read_signing_key(tmp_path / "new" / "next.key"))
    both = [exported_run.keys, tmp_path / "new"]
    assert verify(package, both).key.name == "next"  # both keys are trusted while one takes over
    assert verify(exported_run.package, both).key.name == "release"
    with pytest.raises(PackageRefused, match="not trusted here: release"):
        verify(package, exported_run.keys)
    with pytest.raises(PackageRefused, match=r"of the key next \(\w+\), which expired on 20") as refused:
        verify(package, both, now=soon)
    assert refused.value.rule == "expired_key"
    with pytest.raises(ValueError, match="the key next expired on"):
        sign(package, read_signing_key(tmp_path / "new" / "next.key"), now=soon)
    assert stranger.public.id not in read_keyring(both)


def test_a_package_is_what_it_is_called(package: Path, exported_run):
    assert verify(package, exported_run.keys, name="digits", version=1).manifest.version == 1
    with pytest.raises(PackageRefused, match="is of the model digits, where fraud was expected"):
        verify(package, exported_run.keys, name="fraud")
    with pytest.raises(PackageRefused, match="is of version 1, where 3 was expected"):
        verify(package, exported_run.keys, version=3)


def test_a_damaged_package_is_not_signed(package: Path, exported_run):
    _flip(package / "saved_model.pb")
    with pytest.raises(PackageRefused, match="another hash"):
        sign(package, read_signing_key(exported_run.private_key))


def test_the_copy_is_private_and_outlives_changes_of_the_original(package: Path, exported_run, tmp_path: Path):
    copied = verified_copy(package, exported_run.keys, tmp_path / "copy")
    assert copied.path == tmp_path / "copy"
    assert {stat.S_IMODE(path.stat().st_mode) for path in [copied.path, *copied.path.rglob("*")]} == {0o700, 0o600}
    _flip(package / "saved_model.pb")
    verify(copied.path, exported_run.keys)
    with pytest.raises(FileExistsError):
        verified_copy(exported_run.package, exported_run.keys, tmp_path / "copy")
    verify(copied.path, exported_run.keys)


def test_a_package_that_changes_all_the_time_is_refused_or_copied_whole(package: Path, exported_run, tmp_path: Path):
    good = (package / "saved_model.pb").read_bytes()
    bad = good[:-1] + bytes([good[-1] ^ 1])
    over = threading.Event()

    def swap() -> None:
        turn = 0
        while not over.is_set():
            other = package.parent / "next"
            other.write_bytes(good if turn % 2 else bad)
            os.replace(other, package / "saved_model.pb")
            turn += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = set()
    try:
        for attempt in range(30):
            place = tmp_path / f"copy-{attempt}"
            try:
                verified_copy(package, exported_run.keys, place)
                outcomes.add("copied")
            except PackageRefused:
                assert not place.exists()
            else:
                assert (place / "saved_model.pb").read_bytes() == good
    finally:
        over.set()
        swapper.join()


def test_nothing_is_read_beyond_manifest_and_signature_of_a_stranger(package: Path, tmp_path: Path, monkeypatch):
    create_key(tmp_path / "strangers", "stranger")
    read = []
    digest = verification.FolderWalk.digest
    monkeypatch.setattr(
        verification.FolderWalk, "digest", lambda self, path, *rest: (read.append(path), digest(self, path, *rest))[1]
    )
    with pytest.raises(PackageRefused):
        verify(package, tmp_path / "strangers")
    assert read == ["manifest.json", "manifest.sig"]
