"""A signature of OpenSSF's model-signing beside a package, for organisations whose tools ask for one.

It does not take the place of the package's own: that one also says name, version and what the files may be. It is a
Sigstore bundle with an in-toto statement over the SHA-256 of every file, made and checked by the package model-signing
(the extra `openssf`) with a key of an elliptic curve, without any service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from delivery.package.refusal import PackageRefused, shown


class OpenSsfError(ValueError):
    """The signature cannot be made or checked. The message is one sentence for the user."""


def signature_beside(package: Path) -> Path:
    """Where the signature of a package lies: not in it, for no package holds a file that its manifest does not list.

    >>> signature_beside(Path("runs/mnist/export/1")).as_posix()
    'runs/mnist/export/1.sig'
    """
    return package.with_name(f"{package.name}.sig")


def sign_openssf(package: Path, key: Path) -> Path:
    """Writes the signature of a package beside it, over all of its files as they are.

    Args:
        package: Folder.
        key: Private key of an elliptic curve, PEM without a password.

    Returns:
        The signature.

    Raises:
        OpenSsfError: model-signing is not installed, or the key cannot be used.
        OSError: The signature cannot be written.
    """
    signing = _model_signing().signing
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=_existing(key))
    except (ValueError, TypeError) as error:
        raise OpenSsfError(f"{key} is no private key of an elliptic curve ({error}): {_MAKE_KEY}") from None
    signature = signature_beside(package.absolute())
    signer.sign(package.absolute(), signature)
    return signature


def verify_openssf(package: Path, key: Path) -> None:
    """Checks that the signature beside a package is of this key and of all files of the package, and of no others.

    Args:
        package: Folder.
        key: Public key, PEM.

    Raises:
        OpenSsfError: model-signing is not installed, or the key cannot be used.
        PackageRefused: There is no signature, or it is of another key or other files.
    """
    verifying = _model_signing().verifying
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=_existing(key))
    except (ValueError, TypeError) as error:
        raise OpenSsfError(f"{key} is no public key of an elliptic curve ({error}): {_MAKE_KEY}") from None
    signature = signature_beside(package.absolute())
    if not signature.is_file():
        raise PackageRefused("openssf", "", f"{package} has no OpenSSF signature {signature.name} beside it")
    try:
        verifier.verify(package.absolute(), signature)
    except Exception as error:  # of whichever part of the library finds out
        sentence = f"the OpenSSF signature of {package} is not that of {key} over these files ({shown(str(error))})"
        raise PackageRefused("openssf", "", sentence) from error


_MAKE_KEY = (
    "make one with openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem, and the public one with "
    "openssl ec -in KEY.pem -pubout -out KEY.pub.pem"
)


def _existing(key: Path) -> Path:
    if not key.is_file():
        raise OpenSsfError(f"there is no key {key}: {_MAKE_KEY}")
    return key


def _model_signing() -> Any:
    try:
        import model_signing  # type: ignore[import-not-found]
    except ImportError as error:
        raise OpenSsfError(
            f"OpenSSF signatures need model-signing ({error}): install it with pip install 'phalanx[openssf]'"
        ) from None
    return model_signing
