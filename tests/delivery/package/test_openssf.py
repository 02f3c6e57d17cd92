"""OpenSSF's signature beside a package: made, checked, and refused where anything is another."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from launch.cli import run
from launch.exit_code import ExitCode


@pytest.fixture
def package(exported_run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_run.package, tmp_path / "1"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "openssf.pem")


def new_key(path: Path) -> Path:
    """A private key, and the public one beside it."""
    private = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public_of(path).write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, form))
    return path


def public_of(key: Path) -> Path:
    return key.with_suffix(".pub.pem")


def verify(package: Path, exported_run, key: Path) -> int:
    return run(["verify", str(package), "--key", str(exported_run.keys), "--openssf", str(key), "--json"])


def test_a_package_is_signed_and_what_differs_is_refused(package, exported_run, key, capsys):
    pytest.importorskip("model_signing", reason="model-signing is an extra: openssf")
    assert run(["sign", str(package), "--openssf", str(key)]) == ExitCode.DONE
    signature = package.with_name("1.sig")
    assert f"OpenSSF signature in {signature}" in capsys.readouterr().out
    assert json.loads(signature.read_text())["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert verify(package, exported_run, public_of(key)) == ExitCode.DONE
    capsys.readouterr()

    other = new_key(key.with_name("other.pem"))
    assert verify(package, exported_run, public_of(other)) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["rule"] == "openssf"
    signature.write_text(signature.read_text().replace('"payload":"', '"payload":"AA'))
    assert verify(package, exported_run, public_of(key)) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["rule"] == "openssf"
    signature.unlink()
    assert verify(package, exported_run, public_of(key)) == ExitCode.FAILED
    assert "has no OpenSSF signature 1.sig beside it" in json.loads(capsys.readouterr().out)["reason"]


def test_a_file_that_was_added_is_found_by_it_alone(package, key, capsys):
    pytest.importorskip("model_signing", reason="model-signing is an extra: openssf")
    from delivery.package.openssf import sign_openssf, verify_openssf
    from delivery.package.refusal import PackageRefused

    sign_openssf(package, key)
    verify_openssf(package, public_of(key))
    (package / "added").write_text("x")
    with pytest.raises(PackageRefused, match="added"):
        verify_openssf(package, public_of(key))


def test_what_cannot_be_used_as_a_key_is_named(package, tmp_path, key, capsys):
    pytest.importorskip("model_signing", reason="model-signing is an extra: openssf")
    assert run(["sign", str(package), "--openssf", str(tmp_path / "none.pem")]) == ExitCode.WRONG_REQUEST
    assert "there is no key" in capsys.readouterr().err
    broken = tmp_path / "broken.pem"
    broken.write_text("no key")
    assert run(["sign", str(package), "--openssf", str(broken)]) == ExitCode.WRONG_REQUEST
    assert "is no private key of an elliptic curve" in capsys.readouterr().err


def test_without_the_library_or_a_key_it_is_said_what_to_do(package, key, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    assert run(["sign", str(package), "--openssf", str(key)]) == ExitCode.WRONG_REQUEST
    assert "pip install 'phalanx[openssf]'" in capsys.readouterr().err
    assert run(["sign", str(package)]) == ExitCode.WRONG_REQUEST
    assert "add --key FILE, or --openssf FILE" in capsys.readouterr().err
