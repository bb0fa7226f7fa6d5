from oracles_modeling import golden_json
from released_names import released_key

from tvilfm_plugin.checkpoints.released_keys import our_key


def test_every_released_key_there_and_back():
    keys = [entry["key"] for entry in golden_json("state_dict_keys")["keys"]]
    ours = {key: our_key(key) for key in keys}
    assert len(keys) == 481 and [key for key, name in ours.items() if name is None] == ["logit_scale"]
    del ours["logit_scale"]
    assert len(set(ours.values())) == 480
    assert all(released_key(name) == key for key, name in ours.items())
    assert ours["base_model.visual.shared_model.resnet_conv.3.0.conv1.weight"] == (
        "visual.backbone.base.layer4.0.conv1.weight"
    )


def test_what_has_no_counterpart():
    for key in ("backup_classifier.classifier.weight", "base_model.visual.other", "heads"):
        assert our_key(key) is None
    assert released_key("visual.backbone.base.fc.weight") is None


def test_what_stage_2_keeps_of_stage_1():
    for key, ours in (("backup_pool.p", "stage1.pool.p"), ("backup_classifier.BN.bias", "stage1.neck.bias")):
        assert our_key(key) == ours and released_key(ours) == key
