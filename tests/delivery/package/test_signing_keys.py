import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from delivery.package.signing_keys import (
    KeyRefused,
    create_key,
    parse_time,
    read_keyring,
    read_public_key,
    read_signing_key,
)


def test_a_key_is_made_read_and_never_replaced(tmp_path: Path):
    made = create_key(tmp_path, "release", parse_time("2090-01-31"))
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600
    read = read_signing_key(tmp_path / "release.key")
    assert read.public == made.public == read_public_key(tmp_path / "release.pub.json")
    assert read.public.expires == datetime(2090, 1, 31, tzinfo=timezone.utc)
    with pytest.raises(KeyRefused, match="is there already: choose another name"):
        create_key(tmp_path, "release")
    assert read_signing_key(tmp_path / "release.key").public == made.public


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "ключ", "a b"])
def test_names_are_plain(name: str, tmp_path: Path):
    with pytest.raises(KeyRefused, match="cannot name a key"):
        create_key(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_key_that_would_have_expired_is_not_made(tmp_path: Path):
    with pytest.raises(KeyRefused, match="which is past: give a later time"):
        create_key(tmp_path, "old", datetime.now(timezone.utc) - timedelta(seconds=1))


def test_a_private_key_that_others_may_read_is_not_used(tmp_path: Path):
    create_key(tmp_path, "release")
    (tmp_path / "release.key").chmod(0o640)
    with pytest.raises(KeyRefused, match="others may read the private key"):
        read_signing_key(tmp_path / "release.key")


def test_private_and_public_file_belong_together(tmp_path: Path):
    create_key(tmp_path, "one")
    create_key(tmp_path, "two")
    (tmp_path / "two.pub.json").replace(tmp_path / "one.pub.json")
    with pytest.raises(KeyRefused, match=r"is the public half of another key than .*one\.key"):
        read_signing_key(tmp_path / "one.key")
    with pytest.raises(KeyRefused, match=r"lacks two\.pub\.json beside it"):
        read_signing_key(tmp_path / "two.key")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 5000, '{"kind": "phalanx ed25519 public key"}', "\x00"])
def test_what_is_no_key_says_so(text: str, tmp_path: Path):
    (tmp_path / "x.pub.json").write_text(text)
    with pytest.raises(KeyRefused, match="is no public key of Phalanx"):
        read_keyring(tmp_path)
    (tmp_path / "x.key").write_text(text)
    (tmp_path / "x.key").chmod(0o600)
    with pytest.raises(KeyRefused, match="holds no ed25519 private key"):
        read_signing_key(tmp_path / "x.key")


def test_the_id_belongs_to_the_key(tmp_path: Path):
    key = create_key(tmp_path, "one").public
    path = tmp_path / "one.pub.json"
    path.write_text(path.read_text().replace(key.id, "0" * 16))
    with pytest.raises(KeyRefused, match="is no public key"):
        read_public_key(path)


def test_one_key_with_two_expiries_is_refused(tmp_path: Path):
    create_key(tmp_path, "one", parse_time("2090-01-31"))
    text = (tmp_path / "one.pub.json").read_text()
    (tmp_path / "copy.pub.json").write_text(text.replace("2090", "2099"))
    with pytest.raises(KeyRefused, match="another expiry than another file"):
        read_keyring(tmp_path)


def test_an_empty_keyring_is_refused(tmp_path: Path):
    with pytest.raises(KeyRefused, match="holds no public key"):
        read_keyring(tmp_path)
