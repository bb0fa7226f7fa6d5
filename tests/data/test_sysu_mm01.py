import json
import logging
import pickle
from pathlib import Path

import golden_inputs
import numpy as np
import pytest
import tiny_trees

from tvilfm_plugin.data.datasets import TriSYSUMM01
from tvilfm_plugin.evaluation.protocols import SYSU
from tvilfm_plugin.modality import Modality

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "gallery_sampling.json").read_text())["sysu"]


def below(dataset, items):
    return [Path(item.path).relative_to(dataset.dataset_dir).as_posix() for item in items]


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    # "cam3" in the root: paths must be parsed from the end.
    root = tmp_path_factory.mktemp("root_cam3_0001")
    base = root / "sysu"
    tiny_trees.write_paths(base, golden_inputs.sysu_tree())
    tiny_trees.write_paths(base, ["cam1/0500/0001.jpg", "cam3/0500/0001.jpg"])
    tiny_trees.write_paths(base, ["cam2/0006/Thumbs.db", "cam2/0006/._1.jpg"])
    (base / "exp").mkdir()
    (base / "exp" / "test_id.txt").write_text(",".join(map(str, golden_inputs.SYSU_IDS)))
    for name in ("train", "val"):
        (base / "exp" / f"{name}_id.txt").write_text("500")
    return TriSYSUMM01(root=str(root), shots=(1, 10), text=False)


def test_queries_equal_the_golden(golden):
    for mode in ("all", "indoor"):
        expected = GOLDEN[f"query/{mode}"]
        assert below(golden, golden.query) == expected["paths"]
        assert [item.pid for item in golden.query] == expected["ids"]
        assert [item.camid for item in golden.query] == expected["cams"]


@pytest.mark.parametrize("shots", ["single", "multi_npseed=trial"])
@pytest.mark.parametrize("mode", ["all", "indoor"])
def test_gallery_draws_equal_the_golden(golden, mode, shots):
    name = mode if shots == "single" else f"{mode}-10shot"
    setting = next(setting for setting in golden.settings if setting.name == name)
    assert len(setting.draws) == 10 and setting.shots == (1 if shots == "single" else 10)
    trials = [key for key in GOLDEN if key.startswith(f"gallery/{shots}/{mode}/trial")]
    assert len(trials) >= 2
    for key in trials:
        items = [golden.gallery[index] for index in setting.draws[int(key.rsplit("trial", 1)[1])]]
        expected = GOLDEN[key]
        assert below(golden, items) == expected["paths"]
        if "ids" in expected:
            assert [item.pid for item in items] == expected["ids"]
            assert [item.camid for item in items] == expected["cams"]


def test_gallery_is_the_union_of_the_draws(golden):
    used = np.unique(np.concatenate([draw for setting in golden.settings for draw in setting.draws]))
    assert used.tolist() == list(range(len(golden.gallery)))
    assert len({item.path for item in golden.gallery}) == len(golden.gallery)
    assert {item.path for item in golden.gallery} <= {item.path for item in golden.visible_pool}


def test_training_is_train_and_val_with_ascending_labels(tmp_path):
    base = tiny_trees.write_sysu(tmp_path, train_ids=(9, 4, 1), val_ids=(7, 2), size=None)
    dataset = TriSYSUMM01(root=str(tmp_path))
    assert dataset.train_ids == [1, 2, 4, 7, 9] and dataset.num_classes == 5
    assert len(dataset.train_rgb) == 5 * 4 * 3 and len(dataset.train_ir) == 5 * 2 * 3
    assert dataset.train == dataset.train_rgb + dataset.train_ir
    assert [item.pid for item in dataset.train_rgb] == sorted(item.pid for item in dataset.train_rgb)
    assert all(dataset.train_ids[item.pid] == int(Path(item.path).parent.name) for item in dataset.train)
    assert all(Path(item.path).parts[-3] == f"cam{item.camid}" for item in dataset.train + dataset.query)
    assert dataset.dataset_dir == str(base) and dataset.protocol is SYSU
    assert (dataset.query_modality, dataset.gallery_modality) == (Modality.IR, Modality.RGB)
    assert dataset.captions[Modality.RGB][dataset.relative(dataset.train_rgb[0].path)].rephrase
    again = pickle.loads(pickle.dumps(dataset))
    assert again.train == dataset.train and again.protocol.name == dataset.protocol.name
    dataset.show_train()
    dataset.show_test()


def test_registered_and_called_as_the_host_does(tmp_path):
    from fastreid.data.datasets import DATASET_REGISTRY

    tiny_trees.write_sysu(tmp_path, size=None)
    dataset = DATASET_REGISTRY.get("TriSYSUMM01")(root=str(tmp_path), num_workers=3)
    assert dataset.get_num_pids(dataset.train) == 5 and len(dataset) == len(dataset.train)


def test_without_text_no_caption_is_needed(tmp_path):
    tiny_trees.write_sysu(tmp_path, size=None, captions=False)
    assert TriSYSUMM01(root=str(tmp_path), text=False).captions == {}
    with pytest.raises(FileNotFoundError, match=r"no caption_dict_.*Blip_RGB.*text=False"):
        TriSYSUMM01(root=str(tmp_path))


def test_a_missing_training_caption_is_an_error_with_counts(tmp_path):
    base = tiny_trees.write_sysu(tmp_path, size=None)
    for file in (base / "Text" / "Blip_IR").glob("caption_*.json"):
        captions = json.loads(file.read_text())
        kept = {key: value for key, value in captions.items() if "cam3/0004" not in key}
        file.write_text(json.dumps(kept))
    message = r"3 of 30 ir training images have no caption.*cam3/0004/0001.jpg.*tvilfm data check"
    with pytest.raises(ValueError, match=message):
        TriSYSUMM01(root=str(tmp_path))


def test_identities_of_one_kind_are_left_out_with_one_warning(tmp_path, caplog):
    base = tiny_trees.write_sysu(tmp_path, size=None)
    for camera in (3, 6):
        for file in (base / f"cam{camera}" / "0004").iterdir():
            file.unlink()
    with caplog.at_level(logging.WARNING):
        dataset = TriSYSUMM01(root=str(tmp_path), shots=(1, 10))
    assert dataset.train_ids == [1, 2, 7, 9]
    assert {item.pid for item in dataset.train_rgb} == {item.pid for item in dataset.train_ir} == {0, 1, 2, 3}
    assert len(caplog.records) == 1
    text = caplog.records[0].getMessage()
    assert "1 training identities with 12 images have images of one kind only (4)" in text
    assert "all-10shot: 12 of 12 (identity, camera) groups have fewer than 10 images" in text


def test_short_cells_are_whole_in_every_multi_shot_gallery(tmp_path):
    tiny_trees.write_sysu(tmp_path, size=None)
    dataset = TriSYSUMM01(root=str(tmp_path), modes=("indoor",), shots=(10,), verbose=False)
    assert [setting.name for setting in dataset.settings] == ["indoor-10shot"]
    assert all(len(draw) == 3 * 2 * 3 for draw in dataset.settings[0].draws)


def test_errors_name_fact_choices_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder SYSU-MM01 or sysu.*FASTREID_DATASETS"):
        TriSYSUMM01(root=str(tmp_path))
    base = tiny_trees.write_sysu(tmp_path, size=None)
    for wrong, message in (
        ({"direction": "both"}, "choices are infrared-to-visible, visible-to-infrared"),
        ({"direction": "visible-to-infrared"}, "no published visible-to-infrared protocol"),
        ({"modes": ("outdoor",)}, "choices are all, indoor"),
        ({"shots": (0,)}, "positive numbers"),
        ({"draws": 0}, "at least one gallery draw"),
    ):
        with pytest.raises(ValueError, match=message):
            TriSYSUMM01(root=str(tmp_path), **wrong)
    (base / "exp" / "val_id.txt").write_text("1, x, 2")
    with pytest.raises(ValueError, match=r"val_id.txt.*comma-separated.*x"):
        TriSYSUMM01(root=str(tmp_path))
    (base / "exp" / "val_id.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"val_id.txt.*test_id.txt, train_id.txt"):
        TriSYSUMM01(root=str(tmp_path))


@pytest.mark.parametrize("by_path", [False, True])
def test_training_text_from_arrays(tmp_path, by_path):
    base = tiny_trees.write_sysu(tmp_path, size=None)
    expected = TriSYSUMM01(root=str(tmp_path))
    for kind, items in (("RGB", expected.train_rgb), ("IR", expected.train_ir)):
        bank = expected.captions[Modality(kind.lower())]
        folder = base / "Text" / f"Blip_{kind}"
        keys = [expected.relative(item.path) for item in items]
        keys = sorted(keys) if by_path else keys
        np.save(folder / f"train_text_Blip_{kind}.npy", np.array([bank[key].text for key in keys]))
        np.save(folder / f"train_llm_text_Blip_{kind}.npy", np.array([bank[key].rephrase for key in keys]))
        np.save(folder / f"train_text_label_Blip_{kind}.npy", np.array([int(key.split("/")[1]) for key in keys]))
        (folder / f"caption_llm_dict_Blip_{kind}.json").unlink()
        if kind == "RGB":
            (folder / f"caption_dict_Blip_{kind}.json").unlink()
    dataset = TriSYSUMM01(root=str(tmp_path))
    for modality, items in ((Modality.RGB, dataset.train_rgb), (Modality.IR, dataset.train_ir)):
        for item in items:
            key = dataset.relative(item.path)
            assert dataset.captions[modality][key] == expected.captions[modality][key]
    # Arrays hold training text only; test persons keep their lists.
    assert dataset.captions[Modality.RGB].of_person(12) == expected.captions[Modality.RGB].of_person(12)


def test_other_caption_folders_and_absent_identity_map(tmp_path):
    base = tiny_trees.write_sysu(tmp_path, size=None, prefix="/home/someone/camera/cam9/sysu/")
    for kind in ("RGB", "IR"):
        (base / "Text" / f"Blip_{kind}").rename(base / "Text" / kind)
        (base / "Text" / kind / f"id_caption_map_Blip_{kind}.json").unlink()
    dataset = TriSYSUMM01(root=str(tmp_path))
    bank = dataset.captions[Modality.RGB]
    texts = {bank[dataset.relative(item.path)].text for item in dataset.visible_pool if item.pid == 12}
    assert {caption.text for caption in bank.of_person(12)} == texts
    assert len(bank.of_person(12)) == len(texts)
