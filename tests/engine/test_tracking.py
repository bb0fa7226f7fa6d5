"""Scalars in an experiment tracker: each one once, as tensorboard gets them. Real packages: tests/real."""

import importlib.util

import pytest

pytest.importorskip("fastreid")
from fastreid.utils.events import EventStorage

from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.engine.tracking import TrackingWriter, tracking_writer


def test_a_tracker_gets_every_scalar_once_from_the_first_on():
    heard = []

    def begin():
        heard.append("begins")
        return lambda values, step: heard.append((step, values)), lambda: heard.append("ends")

    writer = TrackingWriter(begin)
    with EventStorage(0) as storage:
        writer.write()
        assert not heard, "stage 2's run would begin while stage 1 trains"
        for loss in (3.0, 1.0, 2.0):
            storage.put_scalar("loss", loss)
            storage.put_scalar("lr", 0.1, smoothing_hint=False)
            storage.step()
        writer.write()
        writer.write()
        storage.put_scalar("all/infrared/R-1", 50.0, smoothing_hint=False)
        writer.write()
    writer.close()
    assert heard == ["begins", (2, {"loss": 2.0, "lr": 0.1}), (3, {"all/infrared/R-1": 50.0}), "ends"]


def test_nobody_is_told_by_default_and_a_missing_package_is_named(monkeypatch):
    cfg = get_cfg()
    assert tracking_writer(cfg) == []
    cfg.TRACKING.KIND = "wandb"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="TRACKING.KIND wandb needs wandb, which is not installed: pip install wandb"):
        tracking_writer(cfg)
