"""Events are read back by TensorBoard's own reader."""

from __future__ import annotations

import pytest
from scoring import R2
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pocketzoo.train.fit import fit
from pocketzoo.train.tensorboard import EventLog
from pocketzoo.train.training_loop import History


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_each_epoch_is_an_event(few, registry, tmp_path):
    bundle = fit("tinynet", tmp_path / "x", data=few, epochs=3, log=tmp_path / "log", registry=registry)
    training, found = bundle.manifest.provenance["training"], scalars(tmp_path / "log")
    assert set(found) == {"loss/train", "accuracy/val", "rate/head"}
    assert [step for step, _ in found["rate/head"]] == [1, 2, 3]
    assert [value for _, value in found["loss/train"]] == pytest.approx(training["loss"], rel=1e-6)
    assert [value for _, value in found["accuracy/val"]] == pytest.approx(training["val_accuracy"], rel=1e-6)
    assert "log" not in training


def test_an_epoch_that_is_done_again_counts_once(tmp_path):
    def note(log: EventLog, epoch: int, loss: float) -> None:
        log(History(epoch=epoch, scores=[0.5], losses=[loss], rates=[0.1]))

    first, second = EventLog(tmp_path, R2), EventLog(tmp_path, R2)
    note(first, 1, 3.0)
    note(first, 2, 2.5)
    first.close()
    note(second, 2, 2.0)
    note(second, 3, 1.0)
    second.close()
    assert scalars(tmp_path)["loss/train"] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    EventLog(tmp_path / "none", "r2").close()
    assert not (tmp_path / "none").exists()
