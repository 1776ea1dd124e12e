"""The commands that look at data."""

from __future__ import annotations

from PIL import Image


def test_a_sheet_is_drawn(run, photos, tmp_path):
    folder = photos(tmp_path / "p", {"cat": 6, "dog": 6})
    out = tmp_path / "sheet.png"
    result = run("data", "preview", folder, "-o", out, "--samples", 4, "--set", "augment=flip,zoom:0.2")
    with Image.open(out) as image:
        assert result.stdout == f"wrote {out} ({image.width} x {image.height} pixels)\n"
    refused = run("data", "preview", folder, "-o", out, "--set", "augment=spin:3")
    assert refused.exit_code == 1
    assert "augment has no 'spin'" in refused.stderr
