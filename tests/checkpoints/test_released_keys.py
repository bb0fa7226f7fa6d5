import pytest
from oracles_modeling import golden_json, small_model, write_tower

from tvilfm_plugin.checkpoints.released_keys import released_key


def test_every_released_key_has_one_of_ours(tmp_path):
    model = small_model("TVILFM", write_tower(tmp_path))
    theirs = [released_key(name) for name in model.state_dict()]
    assert len(set(theirs)) == len(theirs) and None not in theirs
    keys = {entry["key"] for entry in golden_json("state_dict_keys")["keys"]}
    assert len(keys) == 481 and "logit_scale" in keys and "logit_scale" not in theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("visual.backbone.base.conv1.ir.weight", "base_model.visual.ir_model.resnet_conv.0.weight"),
        ("visual.backbone.base.layer4.0.conv1.weight", "base_model.visual.shared_model.resnet_conv.3.0.conv1.weight"),
        ("stage1.pool.p", "backup_pool.p"),
        ("stage1.neck.bias", "backup_classifier.BN.bias"),
        ("visual.backbone.base.fc.weight", None),
    ],
)
def test_names(ours, theirs):
    assert released_key(ours) == theirs
