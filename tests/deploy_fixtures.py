"""Images that the tests of deploying share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first ten digits of the test split as PNG files of 8 x 8 pixels."""
    from PIL import Image

    from pocketzoo.zoo.data.load_data import load_data

    folder = tmp_path_factory.mktemp("digits")
    paths = []
    for i, pixels in enumerate(load_data("digits").split("test").samples[:10]):
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


class LanguageBundles:
    """Tiny language models by family as bundles, with graphs that write; each is made when it is first asked for."""

    def __init__(self, place: Path, folder: Path) -> None:
        self.place, self.folder = place, folder

    def __getitem__(self, family: str) -> Path:
        import shutil

        from filelock import FileLock
        from languages import languages

        from pocketzoo.zoo.models.generation_graphs import with_generation_graphs
        from pocketzoo.zoo.models.open_model import open_model

        path = self.place / family
        self.place.mkdir(exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                with languages(self.folder / family, (family,)) as small:
                    whole = open_model(f"hf://acme/{family}", registry=small.registry)
                    bundle = with_generation_graphs(whole, small.registry)
                    shutil.copytree(bundle.path, self.folder / "made" / family)
                (self.folder / "made" / family).rename(path)
        return path


@pytest.fixture(scope="session")
def language_bundles(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> LanguageBundles:
    """By family; made once for all workers. Read only."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "languages"
    return LanguageBundles(place, tmp_path_factory.mktemp("hub"))
