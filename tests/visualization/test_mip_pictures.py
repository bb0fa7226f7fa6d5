import numpy as np
import pytest
import torch

from tvilfm_plugin.data.eval_set import EvalSet
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.visualization.mip_pictures import build_attention, pick_layer, prompt_map, read_rows, rows_of_people

pytest.importorskip("fastreid")

from mip_models import small_config

from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.mip.readout import read_out


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 64, 32, 3), dtype=np.uint8)
    query = [Item(f"ir/{n}.png", n // 4, 3) for n in range(12)]
    gallery = [Item(f"rgb/{n}.png", n // 6, 1 + n % 2) for n in range(18)]
    return EvalSet(images[:12], images[12:], query, gallery, Modality.IR, Modality.RGB)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MIP(small_config()).eval()


def test_values_are_the_models_own(data, model):
    rows = rows_of_people(data, np.array([0, 2]), most=2, seed=1)
    items = [*data.query_items, *data.gallery_items]
    assert [items[row].pid for row in rows] == [0, 0, 2, 2, 0, 0, 2, 2] and (rows[:4] < 12).all() and (rows[4:] >= 12).all()
    found = read_rows(model.visual, data, rows)
    for i, row in enumerate(rows):
        sample = data[int(row)]
        camera = torch.tensor([sample["camids"]])
        alone = read_out(model.visual, sample["images"][None], Modality(sample["modality"]), camera)
        assert torch.allclose(found.attention[i], alone.attention[0], atol=1e-6)
        assert torch.allclose(found.instance_prompts[i], alone.instance_prompts[0], atol=1e-5)


def test_attention_is_drawn_as_it_is_on_one_scale():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 32, 3), dtype=np.uint8)
    maps = {"baseline": 0.01 * rng.random((3, 10, 5)), "MPL": 0.02 * rng.random((3, 10, 5))}
    figure = build_attention(images, ["one", "two", "three"], maps, "title")
    drawn = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(drawn) == 9
    largest = max(values.max() for values in maps.values())
    for n, label in enumerate(("one", "two", "three")):
        picture, *of_models = drawn[3 * n : 3 * n + 3]
        assert np.array_equal(picture.get_array(), images[n]) and picture.axes.get_xlabel() == label
        for shown, values in zip(of_models, maps.values(), strict=True):
            assert np.array_equal(shown.get_array(), values[n]) and shown.get_interpolation() == "nearest"
            assert shown.get_clim() == (0, largest) and shown.get_cmap().name == "cividis"
            expected = f"{values[n].min():.4f} to {values[n].max():.4f}\nsum {values[n].sum():.3f}"
            assert shown.axes.get_xlabel() == expected
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["image", "baseline", "MPL"] * 2
    assert any(f"0 to {largest:.4f}" in axis.get_ylabel() for axis in figure.axes)
    with pytest.raises(ValueError, match="MPL has 2 maps for 3 images"):
        build_attention(images, ["a", "b", "c"], {"MPL": maps["MPL"][:2]}, "")


def test_prompts_are_mapped_with_the_size_of_their_differences(data):
    rows = np.r_[np.arange(12), 12 + np.arange(18)]
    rng = np.random.default_rng(0)
    pids = np.array([item.pid for item in (*data.query_items, *data.gallery_items)])
    # People differ by a millionth of what all prompts have in common.
    common, own = np.ones((2, 3, 4)), 1e-6 * rng.normal(size=(3, 2, 3, 4))
    prompts = torch.from_numpy(common + own[pids] + 1e-8 * rng.normal(size=(30, 2, 3, 4)))
    found = prompt_map(data, rows, prompts, -1)
    assert found.pids.tolist() == pids.tolist() and found.visible.tolist() == [False] * 12 + [True] * 18
    assert found.note.startswith("images differ by ") and 2e-5 < float(found.note.split()[3]) < 2e-4
    far = np.linalg.norm(found.position[:, None] - found.position[None], axis=2)
    np.fill_diagonal(far, np.inf)
    assert np.array_equal(pids[far.argmin(axis=1)], pids)
    assert not np.array_equal(found.position, prompt_map(data, rows, prompts, 0).position)
    with pytest.raises(ValueError, match="no instance prompts"):
        prompt_map(data, rows, torch.empty(0), -1)


def test_layers_count_from_both_ends():
    assert [pick_layer(4, layer) for layer in (0, 3, -1, -4)] == [0, 3, 3, 0]
    with pytest.raises(ValueError, match=r"no layer 4: the model has 4, 0\.\.3 or -4\.\.-1"):
        pick_layer(4, 4)
