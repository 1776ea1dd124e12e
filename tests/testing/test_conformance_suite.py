"""The suite passes over what ships, and every one of its checks is seen to fail for its own reason."""

from __future__ import annotations

import ast
import pickle
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

import pocketzoo

HERE = Path(__file__).parent
CHECKS = {
    f"{path.stem}.{node.name}"
    for path in (Path(pocketzoo.__file__).parent / "testing").glob("test_*.py")
    for node in ast.parse(path.read_text("utf8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}

# Check -> spec of wrong_zoo.py (with the check's own parameter behind it) -> what the failure says.
WRONG = {
    "test_backbones.test_its_input_is_sane": {
        "one-mean": "one-mean has 2 means and 1 stds for 1 channels",
        "zero-std": "std (0.0,)",
        "small-resize": "resizes to 4 and cuts out 8 x 8",
    },
    "test_backbones.test_its_features_are_stated_whole": {
        "no-vector": "a vector of shape ('batch', 32, 8, 8)",
        "lone-mask": "the mask 'early' is ('batch', 'tokens'), and no sequence of it has an axis 'tokens'",
        "odd-level": "it calls features '../early'",
    },
    "test_backbones.test_its_source_is_named": {"no-source": "the source of its weights is ''"},
    "test_backbones.test_it_builds": {
        "not-built": "build() fails: RuntimeError: no such network",
        "not-a-module": "it returns a str",
    },
    "test_backbones.test_its_weights_fit": {
        "unpinned": "owner/name is pinned to 'main'",
        "unhashed": "not the pinned file",
        "unread": "not the pinned file",
        "other-bytes": "not the pinned file",
    },
    "test_backbones.test_its_features_have_the_stated_shape": {
        **{f"wrong-shape-{b}": f"at batch {b} it gives {b} x 32 x 8 x 8, and states a map" for b in (1, 3)},
        **{f"one-mean-{b}": "it does not run on its own input" for b in (1, 3)},
        "fixed-batch-3": "it does not run on its own input: RuntimeError",
        **{f"{name}-{b}": "not finite" for name in ("not-finite", "zero-std") for b in (1, 3)},
        **{f"a-tuple-{b}": "it returns a tuple" for b in (1, 3)},
        **{f"lost-name-{b}": "it returns deep, early, and states deep, late" for b in (1, 3)},
        **{f"odd-level-{b}": "it returns deep, early, and states deep, ../early" for b in (1, 3)},
        **{f"other-level-{b}": f"it gives {b} x 16 x 8 x 8 as 'early', and states a map" for b in (1, 3)},
        **{f"lone-mask-{b}": f"it gives {b} x 16 x 8 x 8 as 'early', and states a mask" for b in (1, 3)},
    },
    "test_backbones.test_it_gives_the_same_twice": {
        "chance": "two runs on one input differ",
        **dict.fromkeys(("fixed-batch", "one-mean"), "it does not run on its own input"),
        "a-tuple": "it returns a tuple",
        "lost-name": "it returns deep, early, and states deep, late",
        "odd-level": "it returns deep, early, and states deep, ../early",
    },
    "test_backbones.test_its_cuts_give_the_stated_shapes": {
        "one-mean": "it does not run on its own input",
        "no-such-cut": "it has no layer 'nowhere'",
        "wrong-cut": "cut after 'stem' it gives 2 x 16 x 8 x 8, and states ('batch', 32, 8, 8)",
        "unused-cut": "no layer called 'unused' runs",
    },
    "test_backbones.test_its_head_is_there": {
        "no-head": "no head is called 'nowhere'",
        "other-head": "takes the backbone fine",
    },
    "test_backbones.test_it_exports": {"no-graph": "torch cannot export this model"},
    "test_backbones.test_it_survives": {
        "no-graph-low-rank": "torch cannot export this model",
        "fragile-prune": "prune fails on it",
    },
    "test_heads.test_it_takes_known_features": {"takes-nothing": "takes ()"},
    "test_heads.test_its_task_is_there": {
        "no-task": "it has no task",
        "other-task": "its task is 'nowhere'",
        "other-decoder": "the decoder 'values' is for regression",
        "softmax": "'probabilities', which stands for no task",
    },
    "test_heads.test_its_loss_exists": {"no-loss": "'cross_entropie'"},
    "test_heads.test_its_options_have_defaults": {
        "loose-options": "its options are Loose(",
        "two-arguments": "it does not build with its own default options",
    },
    "test_heads.test_it_builds_on_the_features_it_takes": {
        **{f"maps-alone-{n}": "it does not run on a vector" for n in (2, 7)},
        **{f"one-too-many-{n}": f"for {n} outputs it gives (3, {n + 1})" for n in (2, 7)},
        **{f"chance-{n}": "two runs on one input differ" for n in (2, 7)},
        **{f"of-none-{n}": "no backbone is called 'nowhere'" for n in (2, 7)},
        **{f"no-such-level-{n}": "reads the features 'late'; fine-several outputs 'deep'" for n in (2, 7)},
        **{f"two-arguments-{n}": "build() fails on a map" for n in (2, 7)},
    },
    "test_heads.test_it_can_be_trained": {
        "no-gradient": "['spare.weight', 'spare.bias'] has no gradient",
        "two-arguments": "a step of training fails",
        "of-none": "no backbone is called 'nowhere'",
        "no-such-level": "reads the features 'late'; fine-several outputs 'deep'",
        "unused-level": "'own.one-vector.linear.bias'] has no gradient",
    },
    "test_heads.test_it_knows_its_classes": {
        "double-label": "of its 2 labels 1 differ",
        "no-label": "it has weights and no labels",
    },
    "test_heads.test_its_weights_fit": {"other-bytes": "not the pinned file"},
    "test_compressors.test_its_config_and_plan_are_frozen": {"loose": "its config is <class 'wrong_zoo.Loose'>"},
    "test_compressors.test_its_config_is_read_from_a_recipe": {"no-recipe": "AnyConfig.values"},
    "test_compressors.test_planning_changes_nothing": {
        "changes-model": "plan() changes the model",
        "changes-samples": "plan() changes the samples",
    },
    "test_compressors.test_two_plans_agree": {"chance": "two plans for one model differ"},
    "test_compressors.test_a_plan_is_saved_and_read": {"plans-a-set": "frozenset is not JSON serializable"},
    "test_compressors.test_applying_makes_a_new_model_that_runs": {
        "in-place": "apply() changes the model",
        "not-finite": "values that are not finite",
    },
    "test_compressors.test_several_inputs_and_outputs_stay": {
        "loses-an-output": "it leaves the outputs scores",
        "not-finite": "or not finite",
    },
    "test_compressors.test_it_says_what_a_plan_does": {"says-it-twice": "two things of one layer"},
    "test_compressors.test_excluded_layers_are_left_as_they_were": {"excludes-none": "leave out that layer"},
    "test_compressors.test_a_weaker_config_asks_for_less": {"never-weaker": "asks for as much"},
    "test_compressors.test_a_saved_plan_replays_the_structure": {"forgets": "Missing key(s)"},
    "test_exporters.test_it_is_complete": {"no-target": "no target is called 'nowhere'"},
    "test_exporters.test_it_writes_its_file": {
        "writes-nothing": "wrote no out.bin",
        "eats-graph": "changed the graph",
    },
    "test_targets.test_it_is_complete": {
        "uneven": "symmetric and uint8",
        "no-channels": "channel_multiple is 0",
        "old": "opset is 9",
        "behind": "up to opset 17",
        "fp12": "'fp12'",
        "fp8-alone": "its fp8 do not go together",
        "no-fp32": "computes in int8 alone",
        "mute": "says of Loop not what to do",
        "both": "refuses Loop, and runs it slowly",
    },
    "test_targets.test_its_back_end_is_there": {
        "odd-engine": "no back end knows its engine 'no module'",
        "no-back-end": "no backend is called 'nowhere'",
        "facts-alone": "it has facts and names no back end",
        "other-facts": "its facts are OnnxruntimeFacts, and tensorrt knows NvidiaFacts",
    },
    "test_targets.test_a_graph_can_be_held_against_it": {
        "refuses-all": "it refuses tinynet: refuses-all has no Conv",
        "behind": "it refuses tinynet: the graph is in opset 20",
    },
    "test_tasks.test_it_is_whole": {"task-without-rows": "no method 'rows'"},
    "test_tasks.test_its_decoder_is_there": {
        "task-no-decoder": "no decoder is called 'nowhere'",
        "task-other-decoder": "its decoder 'class-scores' is for",
    },
    "test_tasks.test_its_answers_are_scored": {"task-no-metric": "'right' is not among its results: rightness"},
    "test_tasks.test_no_sample_is_refused": {"task-zero": "scores() that has seen nothing gives"},
    "test_tasks.test_parts_make_the_whole": {"task-last-batch": "right is", "task-of-batch": "right is"},
    "test_tasks.test_its_metrics_can_be_sent": {"task-lambda": "its metric is not pickled"},
    "test_tasks.test_a_model_agrees_with_itself": {"task-disagrees": "agreement with itself is 0.5"},
    "test_tasks.test_chance_is_a_score": {"task-chance": "and chance is 2"},
    "test_tasks.test_targets_of_another_kind_are_left_out": {"task-makes-targets": "changes data without targets"},
    "test_tasks.test_answers_are_plain_data": {"task-numpy": "a row is not plain data"},
    "test_tasks.test_what_is_drawn_is_safe": {"task-html": "what it draws has a tag <script>"},
    "test_tasks.test_labels_are_no_targets_of_another_kind": {"task-of-classes": "and asks for 3 outputs"},
    "test_tasks.test_its_targets_go_with_their_images": {"task-moved": "move() changes the targets of images"},
    "test_tasks.test_its_loss_can_be_learned_from": {"task-mean": "that of two halves"},
    "test_decoders.test_its_tasks_are_there": {
        "decoder-of-none": "it is for no task",
        "decoder-of-nowhere": "no task is called 'nowhere'",
    },
    "test_decoders.test_its_config_survives_a_bundle": {"decoder-loose": "its config is LooseConfig("},
    "test_decoders.test_a_batch_is_as_its_samples": {"decoder-batch": "depends on the others of its batch"},
    "test_decoders.test_outputs_that_it_does_not_read_are_refused": {
        "decoder-odd-of no axis": "an output of no axis gives AxisError",
    },
    "test_processors.test_its_config_survives_a_bundle": {
        "processor-loose": "its config is <class 'wrong_tasks.LooseInput'>",
        "processor-set": "does not come back from JSON",
    },
    "test_processors.test_it_says_what_it_reads": {"processor-mute": "does not say what it reads"},
    "test_processors.test_it_is_whole": {"processor-no-inputs": "its inputs are ()"},
    "test_processors.test_random_inputs_fit": {f"processor-random-{n}": "float64" for n in (1, 3)},
    "test_processors.test_a_batch_is_as_its_samples": {
        "processor-chance": "sample 0 gives other arrays each time",
        "processor-random": "the model reads float32",
    },
    "test_processors.test_what_is_no_sample_is_refused": {
        f"processor-errors-{each}": "Error" for each in ("object", "bytes", "str")
    },
    "test_processors.test_arrays_that_do_not_fit_are_refused": {"processor-nan": "arrays that do not fit are taken"},
    "test_processors.test_data_is_given_as_it_reads_it": {"processor-reads": "changes the number of samples"},
    "test_processors.test_it_needs_no_torch": {"processor-torch": "imports torch"},
    "test_backends.test_it_is_whole": {"backend-method": "no method 'support'"},
    "test_backends.test_it_names_its_runtimes": {"backend-taken": "of which one is there twice"},
    "test_backends.test_outputs_are_those_of_onnxruntime": {"backend-outputs": "off by 0.01"},
    "test_backends.test_outputs_are_written_where_they_are_to_be": {"backend-out": "leaves the array of out="},
    "test_backends.test_inputs_that_do_not_fit_are_refused": {"backend-inputs": "runs, where one is"},
    "test_backends.test_threads_change_nothing": {"backend-threads": "with one thread is off by 0.01"},
    "test_backends.test_an_operator_that_it_does_not_know_is_named": {"backend-unknown": "runs an operator"},
    "test_backends.test_without_its_package_it_says_so": {"backend-at-the-top": "without numpy it fails"},
    "test_datasets.test_it_loads": {"fails": "ZeroDivisionError: no samples", "an-array": "returns a ndarray"},
    "test_datasets.test_it_has_three_splits": {"no-val": "'val': 0"},
    "test_datasets.test_its_splits_share_no_sample": {"leaks": "12 samples of val are in test as well"},
    "test_datasets.test_its_classes_have_names": {
        "too-many": "targets from 1 to 2 for 2 labels",
        "never-seen": "train has no sample of ['b']",
    },
    "test_datasets.test_it_is_the_same_each_time": {"chance": "another data set"},
    "test_plugins.test_listing_it_imports_nothing_heavy": {"wrong": "listing 'wrong' imports numpy"},
    "test_specs.test_its_name_can_be_typed": {"backbone BadName": "'BadName' is hard to type"},
    "test_specs.test_its_summary_is_a_line": {"backbone no-summary": "is ''"},
    "test_specs.test_its_license_is_known": {
        "backbone no-license": "Invalid license expression: ''",
        "backbone odd-license": "Invalid license expression: 'my own license'",
    },
    "test_specs.test_its_weights_are_pinned": {
        "backbone unhashed": "the sha256 'abc'",
        "backbone unpinned": "the revision 'main'",
        "backbone unread": "'w.bin', which nothing can read",
    },
    "test_specs.test_it_is_declared_the_same_each_time": {"backbone new-summary": "another summary"},
}
# The same for plugins that are wrong as a whole.
BROKEN = {
    "test_plugins.test_it_loads": {
        "broken": "RuntimeError: no license server",
        "odd": "ExporterSpec.suffix of 'odd' cannot be 'bin'; give a dot",
    },
    "test_plugins.test_it_declares_something": {"empty": "'empty' declares nothing"},
}
TWICE = {
    "test_plugins.test_no_name_is_declared_twice": {"backbone": "backbone 'tinynet' is declared by two plugins"},
    "test_plugins.test_it_loads": {"twice": "backbone 'tinynet' is declared by two plugins"},
}
EMPTY = "from pocketzoo import hookimpl\n\n@hookimpl\ndef pocketzoo_heads():\n    return []\n"
ODD = """
from pocketzoo.api import ExporterSpec, hookimpl

@hookimpl
def pocketzoo_exporters():
    return [ExporterSpec(name="odd", summary="s", suffix="bin", default_target="cpu", export=print)]
"""
AGAIN = """
from pocketzoo import hookimpl
from pocketzoo.plugins.tinynet import pocketzoo_backbones
"""


def keys(table):
    return {(check, spec) for check, specs in table.items() for spec in specs}


@pytest.fixture(scope="module")
def wrong(install, suite, tmp_path_factory, worker_id):
    """Run once for all workers."""
    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "wrong.pickle"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            path.write_bytes(pickle.dumps(run_over_wrong_zoo(install, suite)))
    return SimpleNamespace(**pickle.loads(path.read_bytes()))


def run_over_wrong_zoo(install, suite):
    site = install({"wrong": "wrong_zoo"}, *sorted(HERE.glob("wrong_*.py")))
    (site / "wrong_zoo_files").mkdir()
    (site / "wrong_zoo_files" / "__init__.py").touch()
    (site / "wrong_zoo_files" / "w.safetensors").write_bytes(b"differs from its pinned sha256")
    # Exporting takes seconds: only those that are wrong there, and the one that is right.
    done = suite(
        "--plugin", "wrong", "-k", "not (exports or test_it_survives) or no-graph or fragile or fine-", site=site
    )
    return {f.name: getattr(done, f.name) for f in fields(done)}


@pytest.mark.slow
def test_every_defect_is_found_and_nothing_else(wrong):
    assert wrong.code == 1
    assert sorted(set(wrong.failed) - keys(WRONG)) == []
    assert sorted(keys(WRONG) - set(wrong.failed)) == []
    assert len(wrong.passed) > 500


@pytest.mark.slow
def test_a_failure_says_what_is_wrong_and_what_to_change(wrong):
    for check, specs in WRONG.items():
        for spec, text in specs.items():
            message = wrong.failed[check, spec]
            assert text in message, (check, spec, message)
            assert "\nchange: " in message, (check, spec, message)


@pytest.mark.slow
def test_what_has_no_defect_passes_every_check_of_its_kind(wrong):
    fine = {check for check, spec in wrong.passed if spec.split(" ")[-1].startswith("fine")}
    without = {c for c in CHECKS if not c.startswith("test_plugins")} - fine
    # It has no weights, no head, no labels, no options, no back end; its export is that of "fragile", and all that its
    # decoder and back end need is there. Its targets are classes, which no augmentation moves.
    # It has no weights, head, labels, options or back end, and all that its decoder and back end need is there.
    assert without == {
        "test_tasks.test_its_targets_go_with_their_images",
        "test_tasks.test_labels_are_no_targets_of_another_kind",
        "test_backends.test_without_its_package_it_says_so",
        "test_decoders.test_outputs_that_it_does_not_read_are_refused",
        "test_targets.test_its_back_end_is_there",
        "test_backbones.test_its_source_is_named",
        "test_backbones.test_its_weights_fit",
        "test_backbones.test_its_head_is_there",
        "test_heads.test_it_knows_its_classes",
        "test_heads.test_its_options_have_defaults",
        "test_heads.test_its_weights_fit",
        "test_specs.test_its_weights_are_pinned",
    }
    assert ("test_backbones.test_it_exports", "fragile") in wrong.passed


@pytest.mark.slow
def test_what_is_not_there_is_skipped_with_its_reason(wrong):
    reason = wrong.skipped["test_backbones.test_its_weights_fit", "absent"]
    assert "'not_installed_here', which is not installed (pip install not-installed-here)" in reason
    assert "there is nothing in nowhere (put it there)" in wrong.skipped["test_datasets.test_it_loads", "absent"]
    assert "no defaults to try it with" in wrong.skipped["test_compressors.test_two_plans_agree", "no-defaults"]
    assert "prune refuses it" in wrong.skipped["test_backbones.test_it_survives", "no-graph-prune"]
    assert "cannot be built" in wrong.skipped["test_backbones.test_it_gives_the_same_twice", "not-built"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "table"),
    [({"broken": "broken", "empty": "empty", "odd": "odd"}, BROKEN), ({"twice": "twice"}, TWICE)],
    ids=["broken", "twice"],
)
def test_a_plugin_that_is_wrong_as_a_whole(points, table, install, suite):
    site = install(points, broken="raise RuntimeError('no license server')\n", empty=EMPTY, twice=AGAIN, odd=ODD)
    done = suite("--plugin", ",".join(points), site=site)
    assert set(done.failed) == keys(table), done.output
    for check, specs in table.items():
        for spec, text in specs.items():
            assert text in done.failed[check, spec]
            assert "\nchange: " in done.failed[check, spec]
    assert done.passed


def test_every_check_is_seen_to_fail():
    # The registry refuses fields of a wrong type, so that a target's facts are plain unless a back end's own are not.
    assert {*WRONG, *BROKEN, *TWICE} == CHECKS - {"test_targets.test_its_facts_are_plain"}


@pytest.mark.slow
def test_what_ships_passes(suite):
    plugins = ("--plugin", "tinynet,heads,exporters,compressors", "--plugin", "targets,datasets")
    done = suite(*plugins, POCKETZOO_PLUGINS="")
    assert (done.code, done.failed) == (0, {}), done.output
    assert len(done.passed) > 120
    assert ("test_backbones.test_it_survives", "tinynet-int8") in done.passed
    assert ("test_datasets.test_its_splits_share_no_sample", "digits") in done.passed
    assert ("test_compressors.test_a_plan_is_saved_and_read", "low-rank") in done.passed


@pytest.mark.slow
def test_the_example_passes(suite):
    pytest.importorskip("pocketzoo_efficientnet_lite", reason="examples/efficientnet-lite is not installed")
    # Pruning and factorizing it take minutes; tests/examples does that once, to look at what comes out.
    done = suite("--plugin", "efficientnet-lite", "-k", "not lite0-prune and not lite0-low-rank and not lite1-")
    assert (done.code, done.failed) == (0, {}), done.output
    assert len(done.passed) > 40
    assert ("test_backbones.test_it_survives", "efficientnet-lite0-int8") in done.passed


@pytest.mark.slow
def test_without_a_name_everything_is_checked(suite):
    done = suite("--collect-only", "-q", POCKETZOO_PLUGINS="")
    assert done.code == 0
    for spec in ("[tinynet]", "[linear-7]", "[low-rank]", "[onnx]", "[tensorrt-rtx]", "[digits]", "[backbone tinynet]"):
        assert spec in done.output, spec


def test_an_unknown_name_is_refused_with_the_nearest(suite):
    done = suite("--plugin", "tinynett")
    assert done.code == pytest.ExitCode.USAGE_ERROR
    assert "no plugin is called 'tinynett' (did you mean 'tinynet'?); see pocketzoo plugins" in done.output
    assert not done.passed
