"""Signatures by real keys: whole bundles pass, and nothing else does."""

from __future__ import annotations

import base64
import json
import re
import shutil
from datetime import date, datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path

import pytest

from pocketzoo.core.errors import BundleError, MissingDependencyError, SignatureError
from pocketzoo.zoo.bundles.bundle import read_bundle, updating
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.bundles.signing import SIGNATURE, SIGNED_AT, _Dated, sign, verified, verify_signature

needs_signing = pytest.mark.skipif(
    not (find_spec("model_signing") and find_spec("OpenSSL")),
    reason="model-signing is not installed: pip install 'pocketzoo[sign]'",
)


def key_pair(folder: Path, name: str, curve: str = "SECP256R1", password: bytes | None = None) -> tuple[Path, Path]:
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    from cryptography.hazmat.primitives import serialization as to

    private = getattr(ec, curve)()
    made = ec.generate_private_key(private)
    lock = to.BestAvailableEncryption(password) if password else to.NoEncryption()
    key, public = folder / name, folder / f"{name}.pub"
    key.write_bytes(made.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, lock))
    public.write_bytes(made.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo))
    return key, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("keys"), "key")


@pytest.fixture
def signed(fitted_copy, keys):
    assert sign(fitted_copy.path, key=keys[0]) == fitted_copy.path / SIGNATURE
    return fitted_copy


@needs_signing
def test_what_was_signed_is_verified(signed, keys):
    assert verify_signature(signed.path, key=keys[1]).manifest == signed.manifest


@needs_signing
def test_a_copy_is_as_good_and_what_nobody_lists_does_not_matter(signed, keys, tmp_path):
    copy = shutil.copytree(signed.path, tmp_path / "elsewhere" / "other-name")
    (copy / ".DS_Store").write_bytes(b"")
    assert verify_signature(copy, key=keys[1]).path == copy


@needs_signing
@pytest.mark.parametrize("curve", ["SECP384R1", "SECP521R1"])
def test_other_curves_and_a_signature_elsewhere(curve, fitted, tmp_path):
    key, public = key_pair(tmp_path, "key", curve, b"secret")
    place = sign(fitted.path, key=key, password="secret", out=tmp_path / "signatures" / "fitted.sig")
    assert verify_signature(fitted.path, key=public, signature=place)
    assert not (fitted.path / SIGNATURE).exists()


@needs_signing
def test_another_key_is_not_enough(signed, tmp_path, refused):
    _, public = key_pair(tmp_path, "another")
    with refused(SignatureError, "is not what the owner of", "another.pub", hint="do not use"):
        verify_signature(signed.path, key=public)


@needs_signing
@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "README.md"])
def test_a_file_that_changed_is_noticed_by_its_digest(name, signed, keys, refused):
    data = bytearray((signed.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (signed.path / name).write_bytes(data)
    with refused(BundleError, name, "sha256 differs"):
        verify_signature(signed.path, key=keys[1])


@needs_signing
def test_a_manifest_that_changed_is_noticed_by_the_signature(signed, keys, refused):
    text = (signed.path / MANIFEST).read_text("utf8")
    (signed.path / MANIFEST).write_text(text.replace('"license": "', '"license": "X-'), "utf8")
    assert read_bundle(signed.path).manifest.license.startswith("X-"), "no digest covers it"
    with refused(SignatureError, "pocketzoo.json"):
        verify_signature(signed.path, key=keys[1])


@needs_signing
def test_a_bundle_sealed_anew_is_not_signed(signed, keys, tmp_path, refused):
    old = shutil.copy(signed.path / SIGNATURE, tmp_path / "old.sig")
    with updating(signed, force=True) as draft:
        (draft.folder / "model.onnx").write_bytes((signed.path / "model.onnx").read_bytes() + b"\x12\x01x")
    with refused(SignatureError, "is not signed", hint="pocketzoo sign"):
        verify_signature(signed.path, key=keys[1])
    with refused(SignatureError, "model.onnx"):
        verify_signature(signed.path, key=keys[1], signature=old)


@needs_signing
def test_the_date_is_signed_with_the_rest(signed, keys, refused):
    """Who changes it in the file has no signature any more."""
    before = datetime.now(timezone.utc) - timedelta(minutes=5)
    checked = verified(signed.path, key=keys[1], not_before=before)
    assert checked.at is not None
    assert abs(checked.at - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert set(checked.files) == {MANIFEST, *signed.manifest.files}
    place = signed.path / SIGNATURE
    content = json.loads(place.read_text())
    payload = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    payload["predicate"][SIGNED_AT] = "2100-01-01T00:00:00Z"
    content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    place.write_text(json.dumps(content))
    with refused(SignatureError, "is not what the owner of"):
        verified(signed.path, key=keys[1])


@needs_signing
@pytest.mark.parametrize("dated", [True, False])
def test_an_older_one_is_refused_where_a_newer_is_wanted(dated, fitted_copy, keys, refused, monkeypatch):
    if not dated:  # as signatures of before
        monkeypatch.setattr(_Dated, "sign", lambda self, payload: self.signer.sign(payload))
    sign(fitted_copy.path, key=keys[0])
    checked = verified(fitted_copy.path, key=keys[1])
    assert (checked.at is not None) is dated
    if dated:
        verified(fitted_copy.path, key=keys[1], not_before=date(2020, 1, 1))
        verified(fitted_copy.path, key=keys[1], not_before=checked.at)
        after = checked.at + timedelta(seconds=1)
        with refused(SignatureError, "may be an older one", "is to be of", hint="newest"):
            verified(fitted_copy.path, key=keys[1], not_before=after)
    else:
        with refused(SignatureError, "does not say when it was signed"):
            verify_signature(fitted_copy.path, key=keys[1], not_before=date(2020, 1, 1))


@needs_signing
@pytest.mark.parametrize("content", [b"", b"{}", b"no signature", b'{"mediaType": "x"}', b"\x80\xff"])
def test_a_damaged_signature_is_none(content, signed, keys, refused):
    (signed.path / SIGNATURE).write_bytes(content)
    with refused(SignatureError, "is not what the owner of"):
        verify_signature(signed.path, key=keys[1])


@needs_signing
def test_what_is_no_key_is_named(signed, keys, tmp_path, refused):
    (tmp_path / "text").write_text("no key")
    locked, _ = key_pair(tmp_path, "locked", password=b"secret")
    weak, _ = key_pair(tmp_path, "weak", "SECP256K1")
    for key in (tmp_path / "text", tmp_path / "none", keys[1], locked, weak):
        with refused(SignatureError, f"{key} is not a private key", hint="openssl ecparam"):
            sign(signed.path, key=key)
    for key in (tmp_path / "text", tmp_path / "none", keys[0]):
        with refused(SignatureError, f"{key} is not a public key", hint="openssl ec"):
            verify_signature(signed.path, key=key)


def test_without_the_package_the_extra_is_named(fitted, tmp_path, monkeypatch, refused):
    for name in ("model_signing", "model_signing.signing", "model_signing.verifying"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with refused(MissingDependencyError, "model_signing", hint="pip install 'pocketzoo[sign]'"):
        sign(fitted.path, key=tmp_path / "key")
    with refused(MissingDependencyError, "model_signing", hint="pip install 'pocketzoo[sign]'"):
        verify_signature(fitted.path, key=tmp_path / "key")


@needs_signing
def test_the_commands(run, fitted_copy, keys, tmp_path):
    bundle = fitted_copy.path
    done = run("verify", bundle, "--key", keys[1])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 2)
    assert run("sign", bundle, "--key", keys[0]).stdout == f"wrote {bundle / SIGNATURE}\n"
    intact, said = run("verify", bundle, "--key", keys[1]).stdout.splitlines()
    when = re.fullmatch(rf".* bytes, signed by the owner of {keys[1]} on (\d{{4}}-\d\d-\d\d \S+) UTC", intact)
    assert when is not None
    assert {MANIFEST, "model.onnx", "README.md"} <= set(said.partition("; ")[2].split(", "))
    assert run("verify", bundle).stdout.rstrip().endswith(f"says it was signed on {when[1]} UTC, which --key verifies")
    day = datetime.now(timezone.utc).date()
    assert run("verify", bundle, "--key", keys[1], "--not-before", day.isoformat()).exit_code == 0
    done = run("verify", bundle, "--key", keys[1], "--not-before", (day + timedelta(days=1)).isoformat())
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 2)
    assert run("verify", bundle, "--not-before", day.isoformat()).exit_code == 2
    for line in (("export", bundle), ("bench", bundle, "--seconds", "0", "--no-memory", "--save")):
        done = run(*line)
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 2), done.stderr
        assert f"pocketzoo sign {bundle} --key KEY" in done.stderr
        assert run("verify", bundle, "--key", keys[1]).exit_code == 0
    assert run("export", bundle, "--force").exit_code == 0
    assert not (bundle / SIGNATURE).exists()
    assert run("verify", bundle, "--signature", bundle / SIGNATURE).exit_code == 2
