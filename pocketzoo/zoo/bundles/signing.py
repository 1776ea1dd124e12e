"""Sign and verify bundles by an elliptic-curve key, offline, through model-signing."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import SignatureError
from pocketzoo.core.files import check_file, replacing_file, scratch_folder
from pocketzoo.core.names import check_suffix
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.documents import parse_json, read_json
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.bundle_lock import changing, check_writable
from pocketzoo.zoo.bundles.manifest import MANIFEST, SIGNATURE
from pocketzoo.zoo.bundles.work_folder import check_outside

SIGNED_AT = "signedAt"  # in the predicate, where verifiers ignore what they do not know; signed with the rest of it


@dataclass(frozen=True, slots=True)
class Signed:
    """A bundle whose signature was verified."""

    bundle: Bundle
    at: datetime | None  # in UTC, by the signer's clock; None in signatures of before, which do not say
    files: tuple[str, ...]  # what was signed: the manifest and all that it lists


def sign(
    bundle: str | Path,
    *,
    key: str | Path,
    password: str | None = None,
    out: str | Path | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Sign a bundle with a private key in PEM (P-256, P-384 or P-521); returns the signature's file.

    The signature covers the digests of the manifest and of every file that it lists, and the time. It is a Sigstore
    signature, which ``model_signing verify key`` reads too; it is written into the bundle, or to ``out``.

    Raises:
        MissingDependencyError: model-signing is not installed.
        BundleError, UnsafeFileError: it is not a bundle, or is damaged.
        ExportError: ``out`` is called as if it were no signature, or is another file of a bundle.
        SignatureError: the key cannot be used.
        StorageError: the bundle is read-only, and no ``out`` is given; the disk refused.
    """
    signing = require("model_signing.signing", extra="sign")
    if out is not None:
        check_suffix(Path(out), [".sig", ".signature", ".sigstore", ".json"], "a signature")
        if Path(out).name != SIGNATURE:
            check_outside(Path(out), f"call it {SIGNATURE}, or choose another place with -o")
    with changing(Path(bundle), progress=progress) if (Path(bundle) / MANIFEST).is_file() else nullcontext():
        opened = read_bundle(bundle)
        if out is None:
            check_writable(opened.path)
        config = signing.Config().set_hashing_config(_hashing(opened))
        _use_key(config, key, password)
        place = Path(out) if out is not None else opened.path / SIGNATURE
        with scratch_folder() as folder:
            config.sign(opened.path, folder / SIGNATURE)
            with replacing_file(place) as temporary:
                shutil.copyfile(folder / SIGNATURE, temporary)
    return place


class _Dated:
    """A signer that says when, in what it signs. The library's own has no way to: its predicate is for extension."""

    def __init__(self, signer: Any) -> None:
        self.signer = signer

    def sign(self, payload: Any) -> Any:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        payload.statement.pb.predicate.update({SIGNED_AT: now})
        return self.signer.sign(payload)


class _Reading:
    """A verifier that keeps what it verified: the payload of that very signature."""

    def __init__(self, verifier: Any) -> None:
        self.verifier = verifier
        self.predicate: Mapping[str, Any] = {}

    def verify(self, signature: Any) -> Any:
        expected = self.verifier.verify(signature)
        self.predicate = parse_json(signature.bundle.dsse_envelope.payload).get("predicate", {})
        return expected


def _use_key(config: Any, key: str | Path, password: str | None) -> None:
    secret = password.encode() if password else None  # it hands this to cryptography, which takes bytes
    check_file(key)
    try:
        config.use_elliptic_key_signer(private_key=Path(key), password=secret)
    except (ValueError, TypeError, AttributeError, OSError) as error:  # cryptography's, for what is no such key
        raise SignatureError(
            f"{key} is not a private key to sign with: {error}",
            "make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY",
        ) from error
    config._signer = _Dated(config._signer)


def verify_signature(
    bundle: str | Path,
    *,
    key: str | Path,
    signature: str | Path | None = None,
    not_before: date | datetime | None = None,
) -> Bundle:
    """Open a bundle and verify its signature with the signer's public key in PEM; see ``verified``."""
    return verified(bundle, key=key, signature=signature, not_before=not_before).bundle


def verified(
    bundle: str | Path,
    *,
    key: str | Path,
    signature: str | Path | None = None,
    not_before: date | datetime | None = None,
) -> Signed:
    """Open a bundle and verify its signature with the signer's public key in PEM; with what the signature says.

    An older bundle of the same signer is as well signed as the newest: ``not_before``, of a date its first moment in
    UTC, refuses those that were signed earlier.

    Raises:
        MissingDependencyError: model-signing is not installed.
        BundleError, UnsafeFileError: it is not a bundle, or is damaged.
        SignatureError: there is no signature, it is of another key, or the bundle is not what was signed; it was signed
            before ``not_before``, or does not say when.
    """
    verifying = require("model_signing.verifying", extra="sign")
    opened = read_bundle(bundle)
    place = Path(signature) if signature is not None else opened.path / SIGNATURE
    if not place.is_file():
        raise SignatureError(f"{opened.path} is not signed", "its author signs it by: pocketzoo sign BUNDLE --key KEY")
    config = verifying.Config().set_hashing_config(_hashing(opened))
    check_file(key)
    try:
        config.use_elliptic_key_verifier(public_key=Path(key))
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise SignatureError(
            f"{key} is not a public key to verify with: {error}",
            "ask the signer for it; they make it by: openssl ec -in KEY -pubout -out PUB",
        ) from error
    config._verifier = reading = _Reading(config._verifier)
    try:
        config.verify(opened.path, place)
    except Exception as error:  # ValueError, InvalidSignature, and what parsers raise for a damaged signature
        why = str(error) or "the signature is not of this key"
        raise SignatureError(f"{opened.path} is not what the owner of {key} signed: {why}", "do not use it") from error
    said = reading.predicate.get(SIGNED_AT)
    try:
        at = datetime.fromisoformat(said.replace("Z", "+00:00")) if isinstance(said, str) else None
    except ValueError:
        at = None
    if not_before is not None:
        _check_date(opened.path, at, not_before)
    names = tuple(str(each["name"]) for each in reading.predicate.get("resources", ()))
    return Signed(opened, at, names)


def _check_date(path: Path, at: datetime | None, not_before: date | datetime) -> None:
    if not isinstance(not_before, datetime):
        not_before = datetime(not_before.year, not_before.month, not_before.day)
    earliest = not_before if not_before.tzinfo else not_before.replace(tzinfo=timezone.utc)
    if at is None or at < earliest:
        when = "its signature does not say when it was signed" if at is None else f"it was signed on {shown(at)}"
        raise SignatureError(
            f"{path} may be an older one: {when}, and is to be of {shown(earliest)} or later",
            "get the newest from its author, or give an earlier --not-before",
        )


def shown(at: datetime) -> str:
    """A moment in words: "2026-11-30 14:05:59 UTC"."""
    return f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def signed_at(bundle: Bundle) -> str:
    """When a bundle says that it was signed, unverified; "" where it is not signed."""
    place = bundle.path / SIGNATURE
    if not place.is_file():
        return ""
    try:
        payload = parse_json(base64.b64decode(read_json(place)["dsseEnvelope"]["payload"]))
        return shown(datetime.fromisoformat(payload["predicate"][SIGNED_AT].replace("Z", "+00:00")))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return "an unknown date"


def _hashing(bundle: Bundle) -> Any:
    """What counts: the manifest and what it lists; anything else in the folder is never read."""
    hashing = require("model_signing.hashing", extra="sign")
    others = set(os.listdir(bundle.path)) - {MANIFEST, *bundle.manifest.files}
    return hashing.Config().set_ignored_paths(paths=sorted(others | {SIGNATURE}), ignore_git_paths=False)
