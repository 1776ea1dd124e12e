from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo import __version__
from pocketzoo.compress.configs import DistillConfig, Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.pipeline import recipe
from pocketzoo.compress.pipeline.recipe import (
    SECTIONS,
    VERSION,
    AgentSection,
    BenchSection,
    CompressSection,
    ExportSection,
    FitSection,
    GenerateSection,
    PlaySection,
    PredictSection,
    RunRecipe,
    load_recipe,
    read_compress_section,
    read_recipe,
    read_steps,
)
from pocketzoo.core.errors import RecipeError
from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.core.typed import to_plain
from pocketzoo.train.agents.double_dqn import fit_agent
from pocketzoo.train.fit import fit
from pocketzoo.workflows.bench import bench
from pocketzoo.workflows.generate import generate
from pocketzoo.workflows.play import play
from pocketzoo.workflows.predict import predict
from pocketzoo.workflows.run_recipe import read_run_recipe
from pocketzoo.zoo.catalog.compressor import Step

SHIPPED = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_recipe_is_its_steps_in_order(write, registry):
    path = write("""
        # all three
        [[step]]
        kind = "prune"
        ratio = 0.4
        skip = ["head.*"]

        [[step]]
        kind = "low-rank"
        energy = 0.9
        multiple = 4

        [[step]]
        kind = "int8"
        ranges = "percentile"
        percentile = 99.9
    """)
    assert read_recipe(path, registry) == (
        Step("prune", PruneConfig(ratio=0.4, skip=("head.*",))),
        Step("low-rank", LowRankConfig(energy=0.9, multiple=4)),
        Step("int8", Int8Config(ranges="percentile", percentile=99.9)),
    )


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ('kind = "prune"', PruneConfig()),
        ('kind = "int8"', Int8Config()),
        ('kind = "low-rank"\nenergy = 1', LowRankConfig(energy=1.0)),  # a whole number is a number
        ('kind = "prune"\nratio = 0', PruneConfig(ratio=0.0)),
        ('kind = "low-rank"\nparameters = 0.5\nskip = []', LowRankConfig(parameters=0.5)),
        ('kind = "prune"\ngranularity = "weight"\nscope = "global"', PruneConfig(granularity="weight", scope="global")),
    ],
)
def test_fields_have_defaults(text, config, write, registry):
    assert read_recipe(write("[[step]]\n" + text), registry) == (Step(text.split('"')[1], config),)


STEPS = st.lists(
    st.sampled_from([
        ("prune", PruneConfig(ratio=0.1)),
        ("prune", PruneConfig(ratio=0.5, granularity="weight", skip=("a", "b.*"))),
        ("prune", PruneConfig(multiple=4, scope="global")),
        ("low-rank", LowRankConfig(energy=0.99)),
        ("low-rank", LowRankConfig(parameters=0.25, multiple=2, skip=("*.fc",))),
        ("int8", Int8Config(ranges="minmax")),
    ]),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(STEPS)
def test_file_to_config_to_file_is_a_round_trip(tmp_path_factory, registry, steps):
    lines = []
    for kind, config in steps:
        lines += ["[[step]]", f"kind = {json.dumps(kind)}"]
        lines += [f"{k} = {json.dumps(v)}" for k, v in to_plain(config).items() if v is not None]
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text("\n".join(lines))
    assert read_recipe(path, registry) == tuple(Step(kind, config) for kind, config in steps)


# The mistakes a file can hold: text, words of the message, words of the hint.
MISTAKES = {
    "no steps": ("", "has no steps", "[[step]]"),
    "only a comment": ("# nothing\n", "has no steps", "[[step]]"),
    "an empty list": ("step = []", "has no steps", "[[step]]"),
    "one table instead of a list": ('[step]\nkind = "prune"', "has no steps", "[[step]]"),
    "an unknown table": ('[[stepp]]\nkind = "prune"', "unknown table 'stepp'", "did you mean 'step'?"),
    "another table": ('[model]\nbackbone = "tinynet"\n[[step]]\nkind = "prune"', "unknown table 'model'", "step"),
    "a field outside": ('ratio = 0.3\n[[step]]\nkind = "prune"', "unknown table 'ratio'", "step"),
    "no kind": ("[[step]]\nratio = 0.3", "no step is of kind", "prune"),
    "an unknown kind": ('[[step]]\nkind = "prun"', "kind 'prun'", "did you mean 'prune'?"),
    "a kind with an underscore": ('[[step]]\nkind = "low_rank"', "kind 'low_rank'", "did you mean 'low-rank'?"),
    "a kind in capitals": ('[[step]]\nkind = "INT8"', "kind 'INT8'", "int8"),
    "a kind that is a number": ("[[step]]\nkind = 8", "kind 8", "int8"),
    "a kind that is a list": ('[[step]]\nkind = ["prune"]', "prune", ""),
    "an unknown field": ('[[step]]\nkind = "prune"\nratoi = 0.3', "no field of PruneConfig is called 'ratoi'",
                         "did you mean 'ratio'?"),
    "a field of another step": ('[[step]]\nkind = "int8"\nratio = 0.3', "no field of Int8Config is called 'ratio'", ""),
    "a low-rank typo": ('[[step]]\nkind = "low-rank"\nenergie = 0.3', "no field of LowRankConfig is called 'energie'",
                        "did you mean 'energy'?"),
    "a wrong type": ('[[step]]\nkind = "prune"\nratio = "0.3"', "PruneConfig.ratio must be float, not '0.3'", ""),
    "true for a number": ('[[step]]\nkind = "prune"\nratio = true', "PruneConfig.ratio must be float", ""),
    "a text for a list": ('[[step]]\nkind = "prune"\nskip = "stem"', "PruneConfig.skip", ""),
    "numbers in a list of names": ('[[step]]\nkind = "prune"\nskip = [1]', "PruneConfig.skip[0]", ""),
    "half a multiple": ('[[step]]\nkind = "prune"\nmultiple = 2.5', "PruneConfig.multiple must be int", ""),
    "an unknown choice": ('[[step]]\nkind = "prune"\nscope = "all"', "PruneConfig.scope cannot be 'all'", "'uniform'"),
    "a choice of ranges": ('[[step]]\nkind = "int8"\nranges = "max"', "Int8Config.ranges cannot be 'max'", "'minmax'"),
    "out of range": ('[[step]]\nkind = "prune"\nratio = 1.5', "PruneConfig.ratio cannot be 1.5", "below 1"),
    "not a number": ('[[step]]\nkind = "prune"\nratio = nan', "PruneConfig.ratio cannot be nan", "below 1"),
    "infinite": ('[[step]]\nkind = "low-rank"\nenergy = inf', "LowRankConfig.energy cannot be inf", "at most 1"),
    "both measures": (
        '[[step]]\nkind = "low-rank"\nenergy = 0.9\nparameters = 0.5', "one of parameters, energy and rank_fraction", ""
    ),
    "neither measure": ('[[step]]\nkind = "low-rank"', "one of parameters, energy and rank_fraction", "parameters = "),
    "accept is no truth": ('accept = 1\n[[step]]\nkind = "prune"', "accept of", "write accept = true"),
    "no toml": ("step: prune", "is not valid TOML", ""),
    "an open quote": ('[[step]]\nkind = "prune', "is not valid TOML", ""),
    "a key twice": ('[[step]]\nkind = "prune"\nkind = "int8"', "is not valid TOML", ""),
    "no text": (b"\xff\xfe\x00\x01", "is not valid TOML", ""),
    "a list of numbers": ("step = [1, 2]", "step", ""),
    "a list of texts": ('step = ["prune", "int8"]', "step", ""),
    "a number": ("step = 3", "has no steps", ""),
}  # fmt: skip


STEP = '[[step]]\nkind = "prune"\nratio = 0.2\n'
JOB = """summary = "s"
backbone = "tinynet"

[fit]
epochs = 2

[compress]
targets = ["cpu", "tensorrt"]
samples = 16
max_drop = 0.1
step = [{ kind = "prune", ratio = 0.2 }]
"""
# Version line, and whether the file is read.
VERSIONS = {"": None, "version = 1": None, "version = 2": "later than", "version = 10": "later than",
            "version = 0": "version = 1", "version = -1": "version = 1", "version = 1.0": "version = 1",
            'version = "1"': "version = 1", "version = true": "version = 1", "version = [1]": "version = 1",
            "version = nan": "version = 1"}  # fmt: skip


@pytest.mark.parametrize("shape", ["steps", "job", "compress alone"])
@pytest.mark.parametrize("line", VERSIONS)
def test_a_version_is_one_that_is_read_or_says_what_is_needed(line, shape, write, registry, refused):
    """In either shape, and by either command; a file without one is of before there were versions."""
    body = {"steps": STEP, "job": JOB, "compress alone": STEP.replace("[[step]]", "[[compress.step]]")}[shape]
    path, hint = write(f"{line}\n{body}"), VERSIONS[line]
    if hint is None:
        assert read_recipe(path, registry) == (Step("prune", PruneConfig(ratio=0.2)),)
        assert read_run_recipe(path, backbone="tinynet").compress == read_compress_section(path)
        return
    said = "recipe.toml is a recipe of version" if "later" in hint else "version of "
    for read in (lambda: read_recipe(path, registry), lambda: read_run_recipe(path)):
        with refused(RecipeError, said, hint=hint):
            read()
    assert VERSION == 1


def test_a_later_version_is_said_before_anything_that_this_one_does_not_know(write, registry, refused):
    with refused(RecipeError, f"reads version {VERSION}", hint="pip install --upgrade pocketzoo"):
        read_recipe(write(f"version = {VERSION + 1}\nnot_invented_yet = 3\n[[step]]\nkind = 8"), registry)


def test_of_a_whole_job_compress_takes_its_section(write, registry):
    assert read_compress_section(write(JOB)) == CompressSection(
        targets=("cpu", "tensorrt"), samples=16, max_drop=0.1, step=({"kind": "prune", "ratio": 0.2},)
    )
    assert read_recipe(write(JOB), registry) == (Step("prune", PruneConfig(ratio=0.2)),)


NO_STEP = JOB.split("step =", maxsplit=1)[0]
# Text, words of the message, words of the hint: what a job can hold that ``compress`` refuses.
JOBS = {
    "no section of it": (JOB.split("[compress]", maxsplit=1)[0], "has no section [compress]", "pocketzoo run"),
    "steps twice": (STEP + NO_STEP.split('"tinynet"')[1], "both [compress] and step", "move that into"),
    "accept outside": ("accept = true\n" + JOB, "both [compress] and accept", "move that into"),
    "a mistake elsewhere": (JOB.replace("epochs", "epoch"), "no field of FitSection is called 'epoch'", "'epochs'"),
    "an unknown section": (JOB.replace("[fit]", "[fitt]"), "unknown table 'fitt'", "did you mean 'fit'?"),
    "an unknown setting": (JOB.replace("samples", "sample"), "no field of CompressSection is called", "'samples'"),
    "no step": (NO_STEP, "CompressSection needs a field 'step'", "targets"),
    "an empty list": (NO_STEP + "step = []", "has no steps", "[[step]]"),
    "a step that is a word": (NO_STEP + 'step = ["int8"]', "a step that is not a table", "[[step]]"),
    "a budget that cannot be": (JOB.replace("0.1", "1.0"), "max_drop cannot be 1.0", "below 1"),
    "accept of another type": (JOB + "accept = 1\n", "accept must be bool, not 1", "correct"),
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_read_as_strictly_when_it_is_only_compressed(name, write, registry, refused):
    text, message, hint = JOBS[name]
    with refused(RecipeError, message, hint=hint):
        read_recipe(write(text), registry)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_each_that_ships_has_a_version_and_can_be_compressed_by(path, registry):
    assert "\nversion = 1\n" in path.read_text("utf8")
    assert read_recipe(path, registry)


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_says_where_and_what_next(name, write, registry, refused):
    text, message, hint = MISTAKES[name]
    with refused(RecipeError, message, hint=hint):
        read_recipe(write(text), registry)


@pytest.mark.parametrize("name", [n for n, (text, *_) in MISTAKES.items() if str(text).startswith("[[step]]")])
def test_a_mistake_in_a_later_step_is_found_as_well(name, write, registry, refused):
    text, message, hint = MISTAKES[name]
    with refused(RecipeError, message, hint=hint):
        read_recipe(write('[[step]]\nkind = "prune"\nratio = 0.2\n\n' + text), registry)


def test_a_missing_file_is_named(tmp_path, registry, refused):
    with refused(RecipeError, f"there is no recipe {tmp_path / 'gone.toml'}", hint="path"):
        read_recipe(tmp_path / "gone.toml", registry)


def test_a_folder_is_no_recipe(tmp_path, registry, refused):
    with refused(RecipeError, str(tmp_path)):
        read_recipe(tmp_path, registry)


def test_the_name_of_the_file_is_in_the_message(write, registry, refused):
    with refused(RecipeError, "recipe.toml"):
        read_recipe(write(""), registry)


@pytest.mark.parametrize("steps", [["int8"], [{"kind": "prune"}, "int8"], ["int8", {"kind": "prune"}], [{}, 3]])
def test_steps_that_are_not_all_tables_are_refused(steps, registry, refused):
    """As JSON and Python give them: TOML has no lists of both."""
    with refused(RecipeError, "mine has a step that is not a table", hint="[[step]]"):
        read_steps(steps, "mine", registry)


def test_a_recipe_of_the_previous_release_is_read_with_a_warning_for_each_name(write, registry):
    path = write("""
        [[step]]
        kind = "low-rank"
        rank_share = 0.1

        [[step]]
        kind = "heal"
        quantised = true
    """)
    with pytest.warns(RenamedWarning) as told:
        steps = read_recipe(path, registry)
    assert steps == (
        Step("low-rank", LowRankConfig(rank_fraction=0.1)),
        Step("distill", DistillConfig(quantized=True)),
    )
    renamed = [("rank_share", "rank_fraction"), ("heal", "distill"), ("quantised", "quantized")]
    end = "; the old name works in this release only"
    assert [str(each.message) for each in told] == [f"{a!r} was renamed to {b!r}{end}" for a, b in renamed]


@pytest.mark.parametrize(
    ("section", "function"),
    [
        (FitSection(), fit),
        (AgentSection(environment="CartPole-v1"), fit_agent),
        (PlaySection(), play),
        (GenerateSection(prompts=("a",)), generate),
        (PredictSection(), predict),
        (BenchSection(), bench),
    ],
    ids=["fit", "agent", "play", "generate", "predict", "bench"],
)
def test_what_a_section_does_not_say_is_as_the_function_has_it(section, function):
    """What it has no default for, a section has to say; None and an empty table say the same."""
    known = inspect.signature(function).parameters
    said = {f.name: getattr(section, f.name) for f in fields(section) if f.name in known}
    assert {f.name for f in fields(section)} - set(said) == ({"samples"} if function is predict else set())
    defaults = {name: known[name].default for name in said if known[name].default is not inspect.Parameter.empty}
    assert set(said) - set(defaults) == {f.name for f in fields(section) if f.name in ("environment", "prompts")}
    assert {name: None if said[name] == {} else said[name] for name in defaults} == defaults


def test_what_a_function_is_called_with_for_each_sample_or_format_has_a_default():
    assert PredictSection().samples == 5
    assert ExportSection().to == ("onnx",)


NO_ONE = {"cut": "", "input_size": None, "epochs": None, "batch_size": None, "learning_rate": None, "unfreeze": None}
OPTIONS = {"head_options": {}, "backbone_options": {}, "training": {}}
LIMITS = {"samples": 256, "max_drop": None, "min_sqnr": None, "keep_slower": False, "accept": False, "outputs": []}
DEFAULTS = [
    (FitSection(), {"head": "linear", **OPTIONS, **NO_ONE}),
    (AgentSection(environment="e"), {"environment": "e", **OPTIONS}),
    (CompressSection(step=()), {"targets": ["cpu"], "step": [], **LIMITS}),
    (ExportSection(), {"to": ["onnx"]}),
    (BenchSection(), {"batch_sizes": [1, 32], "seconds": 0.5, "threads": 1, "memory": True}),
    (PlaySection(), {"episodes": 100}),
    (GenerateSection(prompts=("p",)), {"prompts": ["p"], "max_new_tokens": 64, "beams": 1, "length_penalty": 1.0}),
    (PredictSection(), {"samples": 5, "top": 5}),
]


def test_what_a_section_is_when_nothing_is_said():
    for section, wanted in DEFAULTS:
        assert to_plain(section) == wanted
    job = RunRecipe(export=ExportSection())
    assert (job.summary, job.backbone, job.data, job.seed, job.skip_bad) == ("", "", "", 0, False)
    assert [name for name in SECTIONS if getattr(job, name) is not None] == ["export"]
    assert SECTIONS == ("agent", "fit", "compress", "play", "generate", "predict", "export", "bench")


AGENT, FIT, GENERATE = AgentSection(environment="e"), FitSection(), GenerateSection(prompts=("p",))


@pytest.mark.parametrize(
    ("sections", "own"),
    [
        ({"agent": AGENT, "backbone": "mlp"}, "states the agent visited"),
        ({"agent": AGENT, "backbone": "mlp", "generate": GENERATE}, "states the agent visited"),
        ({"generate": GENERATE}, "its prompts"),
        ({"generate": GENERATE, "fit": FIT}, ""),
        ({"fit": FIT}, ""),
        ({"predict": PredictSection()}, ""),
    ],
)
def test_what_a_job_brings_to_measure_on(sections, own):
    assert RunRecipe(**sections).own_data == own


def said(refused, call) -> str:
    with refused(RecipeError) as caught:
        call()
    return str(caught.value)


def test_a_job_needs_a_section_and_an_agent_its_own_backbone(refused):
    every = "agent, fit, compress, play, generate, predict, export, bench"
    assert said(refused, lambda: RunRecipe(backbone="b")) == f"the recipe has no section to run\nadd one of: {every}"
    both = "the recipe has both [agent] and [fit]\nleave out one of them"
    assert said(refused, lambda: RunRecipe(backbone="mlp", agent=AGENT, fit=FIT)) == both
    wrong = "an agent needs the mlp backbone, not 'tinynet'\nset backbone = \"mlp\""
    assert said(refused, lambda: RunRecipe(backbone="tinynet", agent=AGENT)) == wrong
    assert RunRecipe(backbone="tinynet", fit=FIT).fit is FIT


def test_what_is_loaded_of_each_form(write):
    prune = {"kind": "prune", "ratio": 0.2}
    assert load_recipe(write("version = 1\n" + STEP)) == {"compress": {"step": [prune]}}
    assert load_recipe(write("accept = true\n" + STEP)) == {"compress": {"step": [prune], "accept": True}}
    assert load_recipe(write("accept = false\n" + STEP)) == {"compress": {"step": [prune], "accept": False}}
    assert load_recipe(write(STEP + "[fit]\nepochs = 1")) == {"compress": {"step": [prune]}, "fit": {"epochs": 1}}
    assert load_recipe(write("[export]\nto = ['onnx']")) == {"export": {"to": ["onnx"]}}
    assert load_recipe(write("[compress]\nsamples = 3")) == {"compress": {"samples": 3}}
    assert load_recipe(write("")) == {}


# Text, and what is said, {0} being the file.
WHOLE = {
    "version": ("version = 0", "version of {0} cannot be 0\nwrite version = 1"),
    "later": ("version = 2", "{0} is a recipe of version 2; pocketzoo {1} reads version 1\n"
              "it needs a pocketzoo later than {1}: pip install --upgrade pocketzoo"),
    "accept": ("accept = 'yes'\n" + STEP, "accept of {0} cannot be 'yes'\nwrite accept = true, or leave it out"),
    "both": ("accept = true\n" + STEP + "[compress]\nsamples = 1",
             "{0} has both [compress] and step and accept outside of it\nmove that into [compress]"),
    "far from all, beside steps": ("quokka = 1\n" + STEP,
                                   "{0} has an unknown table 'quokka'\nknown: accept, step, version"),
    "far from all, in a job": ("quokka = 1\n[fit]\n",
                               "{0} has an unknown table 'quokka'\nknown: accept, agent, backbone, bench,"
                               " compress, data, export, fit, generate, group_by, play, predict, ..."),
    "no steps": ("[compress]\nstep = []", "{0} has no steps\nadd one: [[step]] kind = 'int8'"),
    "words": ("step = ['int8']", "{0} has a step that is not a table\nwrite each as [[step]]"),
    "empty": ("summary = 's'", "{0} has no steps\nadd one: [[step]] kind = 'int8'"),
    "no compress": ("[fit]\nepochs = 1",
                    "{0} has no section [compress]\nadd one: [[compress.step]] kind = 'int8'; or: pocketzoo run {0}"),
    "no kind": ("[[step]]\nratio = 0.1", "no step is of kind None\nknown: {2}"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_said_whole(name, write, registry, refused):
    text, wanted = WHOLE[name]
    path = write(text)
    known = ", ".join(sorted(registry.entries("compressor")))
    assert said(refused, lambda: read_recipe(path, registry)) == wanted.format(path, __version__, known)


def test_what_cannot_be_read_is_said_whole(tmp_path, write, refused, monkeypatch):
    gone = tmp_path / "gone.toml"
    assert said(refused, lambda: load_recipe(gone)) == f"there is no recipe {gone}\ncheck the path"
    assert said(refused, lambda: load_recipe(tmp_path)) == f"{tmp_path} is a folder\nname the recipe's file"
    path = write(STEP)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", denied)
    wanted = f"cannot read the recipe {path}: Permission denied\ncheck the path"
    assert said(refused, lambda: load_recipe(path)) == wanted


def test_steps_are_read_without_changing_what_was_given(registry):
    given = [{"kind": "prune", "ratio": 0.2}, {"kind": "int8"}]
    assert read_steps(tuple(given), "mine", registry) == (
        Step("prune", PruneConfig(ratio=0.2)),
        Step("int8", Int8Config()),
    )
    assert given == [{"kind": "prune", "ratio": 0.2}, {"kind": "int8"}]


@pytest.mark.parametrize("steps", [None, [], (), {}, {"kind": "prune"}, "int8", 3])
def test_what_is_no_list_of_steps_is_none(steps, registry, refused):
    wanted = "mine has no steps\nadd one: [[step]] kind = 'int8'"
    assert said(refused, lambda: read_steps(steps, "mine", registry)) == wanted


def test_the_sections_of_a_job_may_say_nothing_of_steps(write):
    """``compress`` of it does: a section that is there is read as it is."""
    section = read_compress_section(write("backbone = 'b'\n[compress]\nsamples = 3\n[[compress.step]]\nkind = 'int8'"))
    assert section == CompressSection(samples=3, step=({"kind": "int8"},))
    assert recipe.SHORT == ("step", "accept")
