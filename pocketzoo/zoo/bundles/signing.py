"""Sign and verify bundles by an elliptic-curve key, offline, through model-signing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import SignatureError
from pocketzoo.core.files import replacing_file
from pocketzoo.core.optional import require
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST

SIGNATURE = "model.sig"  # next to the manifest, which does not list it: whatever changes the bundle drops it


def sign(bundle: str | Path, *, key: str | Path, password: str | None = None, out: str | Path | None = None) -> Path:
    """Sign a bundle with a private key in PEM (P-256, P-384 or P-521); returns the signature's file.

    The signature covers the digests of the manifest and of every file that it lists. It is a Sigstore signature, which
    ``model_signing verify key`` reads too; it is written into the bundle, or to ``out``.

    Raises:
        MissingDependencyError: model-signing is not installed.
        BundleError, UnsafeFileError: it is not a bundle, or is damaged.
        SignatureError: the key cannot be used.
    """
    signing = require("model_signing.signing", extra="sign")
    opened = read_bundle(bundle)
    config = signing.Config().set_hashing_config(_hashing(opened))
    secret = password.encode() if password else None  # it hands this to cryptography, which takes bytes
    try:
        config.use_elliptic_key_signer(private_key=Path(key), password=secret)
    except (ValueError, TypeError, AttributeError, OSError) as error:  # cryptography's, for what is no such key
        raise SignatureError(
            f"{key} is not a private key to sign with: {error}",
            "make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY",
        ) from error
    place = Path(out) if out is not None else opened.path / SIGNATURE
    with tempfile.TemporaryDirectory() as folder:
        config.sign(opened.path, Path(folder) / SIGNATURE)
        with replacing_file(place) as temporary:
            shutil.copyfile(Path(folder) / SIGNATURE, temporary)
    return place


def verify_signature(bundle: str | Path, *, key: str | Path, signature: str | Path | None = None) -> Bundle:
    """Open a bundle and verify its signature with the signer's public key in PEM.

    Raises:
        MissingDependencyError: model-signing is not installed.
        BundleError, UnsafeFileError: it is not a bundle, or is damaged.
        SignatureError: there is no signature, it is of another key, or the bundle is not what was signed.
    """
    verifying = require("model_signing.verifying", extra="sign")
    opened = read_bundle(bundle)
    place = Path(signature) if signature is not None else opened.path / SIGNATURE
    if not place.is_file():
        raise SignatureError(f"{opened.path} is not signed", "its author signs it by: pocketzoo sign BUNDLE --key KEY")
    config = verifying.Config().set_hashing_config(_hashing(opened))
    try:
        config.use_elliptic_key_verifier(public_key=Path(key))
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise SignatureError(
            f"{key} is not a public key to verify with: {error}",
            "ask the signer for it; they make it by: openssl ec -in KEY -pubout -out PUB",
        ) from error
    try:
        config.verify(opened.path, place)
    except Exception as error:  # ValueError, InvalidSignature, and what parsers raise for a damaged signature
        why = str(error) or "the signature is not of this key"
        raise SignatureError(f"{opened.path} is not what the owner of {key} signed: {why}", "do not use it") from error
    return opened


def _hashing(bundle: Bundle) -> Any:
    """What counts: the manifest and what it lists; anything else in the folder is never read."""
    hashing = require("model_signing.hashing", extra="sign")
    others = set(os.listdir(bundle.path)) - {MANIFEST, *bundle.manifest.files}
    return hashing.Config().set_ignored_paths(paths=sorted(others | {SIGNATURE}), ignore_git_paths=False)
