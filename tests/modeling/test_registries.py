import pytest
import torch

from tvilfm_plugin.modeling.registries import FUSION_REGISTRY, LOSS_REGISTRY, choose, choose_losses, evaluate_losses


def test_names_of_the_config():
    assert choose(FUSION_REGISTRY, "Add", "TVILFM.FUSION").__name__ == "Add"
    assert set(choose_losses(("identity", "weighted_triplet"))) == {"identity", "weighted_triplet"}


def test_a_wrong_name_lists_the_choices():
    with pytest.raises(KeyError, match="TVILFM.FUSION is 'Mul'.*Add, FilteredAdd"):
        choose(FUSION_REGISTRY, "Mul", "TVILFM.FUSION")
    with pytest.raises(KeyError, match="'CrossEntropyLoss'.*identity, weighted_triplet"):
        choose_losses(("CrossEntropyLoss",))
    with pytest.raises(ValueError, match="1 entries for the 2 losses"):
        choose_losses(("identity", "weighted_triplet"), (1.0,))


def test_weights_scale_losses():
    feats, logits, pids = torch.randn(6, 4), torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    plain = evaluate_losses(choose_losses(("identity", "weighted_triplet")), feats, logits, pids, gather=False)
    scaled = evaluate_losses(choose_losses(("identity", "weighted_triplet"), (0.5, 2)), feats, logits, pids, gather=True)
    assert list(plain) == ["loss_identity", "loss_weighted_triplet"]
    assert scaled["loss_identity"] == plain["loss_identity"] * 0.5
    assert scaled["loss_weighted_triplet"] == plain["loss_weighted_triplet"] * 2


def test_one_can_add_a_loss():
    @LOSS_REGISTRY.register()
    def feature_size(features, logits, pids):
        return features.square().mean()

    try:
        assert set(choose_losses(["feature_size"])) == {"feature_size"}
    finally:
        del LOSS_REGISTRY._obj_map["feature_size"]
