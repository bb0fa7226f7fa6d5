"""The retriever on a trained run: it answers what the evaluator measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_scripts import load_tool

pytest.importorskip("fastreid")

from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.fingerprint import FingerprintError
from tvilfm_plugin.retrieval.records import Filter, Record
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.tracker import CropEncoder

retrieve = load_tool("retrieve")


@pytest.fixture(scope="module")
def gallery(stored):
    """The images of the first gallery draw, as records."""
    columns = stored.draws["all"][0]
    labels = zip(stored.gallery.pids[columns].tolist(), stored.gallery.camids[columns].tolist(), strict=True)
    return [Record(stored.gallery_paths[g], pid, camid) for g, (pid, camid) in zip(columns, labels, strict=True)]


@pytest.fixture(scope="module")
def retriever(trained, gallery):
    made = Retriever.from_checkpoint(trained / "config.yaml", trained / "model_final.pth")
    made.embed_gallery(gallery)
    return made


@pytest.mark.parametrize("source", ["witness", "oracle", "self", "wrong", "none"])
def test_similarities_and_ranking_are_the_evaluators(retriever, stored, gallery, source):
    card = next(card for card in stored.cards.values() if card.text_source == source)
    seed = card.text_seeds[0] if card.text_seeds else 0
    embeddings, _ = stored.drawn_gallery("all", 0)
    for kind in stored.types(source):
        queries = stored.queries("all", source, seed, 0, kind.members)
        similarity = (ensemble(queries, kind.members) @ embeddings.T).numpy()
        for q in range(0, len(stored.query_paths), 3):
            said = own = None
            if source != "none":
                text = stored.text("all", source, seed)
                said = stored.texts[text.rgb[0][q]]
                own = None if source == "self" else stored.texts[text.ir[q]]
            hits, note = retriever.search(stored.query_paths[q], said, own, len(gallery), kind.members)
            order = np.argsort(-similarity[q], kind="stable")
            np.testing.assert_allclose([hit.similarity for hit in hits], similarity[q][order], rtol=0, atol=1e-5)
            ours = similarity[q][[next(n for n, r in enumerate(gallery) if r.path == hit.path) for hit in hits]]
            np.testing.assert_allclose(ours, similarity[q][order], rtol=0, atol=2e-6)  # the same order up to rounding
            assert hits[0][:3] == gallery[[r.path for r in gallery].index(hits[0].path)][:3]
            for member, unit in queries.items():
                share = float(unit[q] @ embeddings[[r.path for r in gallery].index(hits[0].path)])
                assert hits[0].shares[member] == pytest.approx(share, abs=1e-5)
            assert hits[0].similarity == sum(hits[0].shares.values())
            assert "left out" not in note


def test_without_a_filter_text_the_rule_of_source_self_applies_and_is_said(retriever, stored):
    text = stored.text("all", "self", 0)
    members = stored.types("self")[-1].members
    queries = ensemble(stored.queries("all", "self", 0, 0, members), members)
    similarity = (queries @ stored.drawn_gallery("all", 0)[0].T).numpy()
    hits, note = retriever.search(stored.query_paths[0], stored.texts[text.rgb[0][0]])
    assert hits[0].similarity == pytest.approx(float(similarity[0].max()), abs=1e-5)
    assert set(hits[0].shares) == {Modality.IR, Modality.TEXT}
    assert "the text filters itself" in note and note.endswith("it is left out")
    alone, _ = retriever.search(stored.query_paths[0])
    fused, note = retriever.search(stored.query_paths[0], "a man in red", members=["fusion"])
    assert [hit.path for hit in fused] == [hit.path for hit in alone] and "exactly the infrared embedding" in note


def test_words_alone_pictures_alone_arrays_and_blanks(retriever, stored):
    words = retriever.search(text="a man in a red coat", top=3)
    assert len(words.hits) == 3 and set(words.hits[0].shares) == {Modality.TEXT} and "no infrared image" in words.note
    path = stored.query_paths[0]
    expected = retriever.search(path, "", "  ", 3)
    with Image.open(path) as image:
        for picture in (Path(path), image.copy(), np.asarray(image.convert("RGB"))):
            assert retriever.search(picture, top=3).hits == expected.hits
        grey = np.asarray(image.convert("L"))
        assert retriever.search(grey).hits == retriever.search(np.repeat(grey[:, :, None], 3, axis=2)).hits
    assert {hit.camid for hit in retriever.search(path, allowed=Filter(cameras=[2])).hits} == {2}


def test_what_cannot_be_searched_is_said(retriever, trained, tiny):
    with pytest.raises(ValueError, match="needs an infrared image, a text, or both"):
        retriever.search()
    with pytest.raises(ValueError, match=r"Pixels of shape \(4, 4, 4\) and type uint8 are no image"):
        retriever.search(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="type float64"):
        retriever.search(np.zeros((4, 4)))
    files = trained / "config.yaml", trained / "model_final.pth"
    with pytest.raises(ValueError, match="TEST.IMS_PER_BATCH is 0; it must be a whole number of at least 1"):
        Retriever.from_checkpoint(*files, opts=["TEST.IMS_PER_BATCH", "0"])
    with pytest.raises(ValueError, match="^MODEL.DEVICE is 'xyz'; choices are cpu"):
        Retriever.from_checkpoint(*files, device="xyz")
    stage1 = Retriever.from_checkpoint(tiny.stage1, trained / "stage1" / "model_final.pth")
    with pytest.raises(ValueError, match="There is no gallery yet"):
        stage1.search(np.zeros((9, 9), np.uint8))
    stage1.index = retriever.index
    with pytest.raises(ValueError, match="VIBaseline has no text encoder"):
        stage1.search(text="a man")


def test_unreadable_images_are_listed_and_skipped_and_files_come_back(trained, retriever, gallery, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture at all")
    names = [record.path for record in gallery]
    other = Retriever.from_checkpoint(trained / "config.yaml", trained / "model_final.pth", opts=["TEST.IMS_PER_BATCH", "5"])
    index = other.embed_gallery([*names[:6], broken, *names[6:]], index_file=tmp_path / "g.index", block=4)
    assert [bad.path for bad in other.unreadable] == [str(broken)] and "UnidentifiedImageError" in other.unreadable[0].reason
    assert index.records.paths == names
    np.testing.assert_allclose(index.vectors(np.arange(len(names))), retriever.index.vectors(np.arange(len(names))), atol=1e-6)
    other.index = None
    assert len(other.load_gallery(tmp_path / "g.index")) == len(names)
    resized = Retriever.from_checkpoint(
        trained / "config.yaml", trained / "model_final.pth", opts=["INPUT.SIZE_TEST", "[96, 48]"]
    )
    with pytest.raises(FingerprintError, match="preprocessing '48x24 lanczos.* instead of '96x48"):
        resized.load_gallery(tmp_path / "g.index")


def test_a_tracker_gets_unit_features(retriever, gallery):
    frames = [np.asarray(Image.open(record.path).convert("RGB")) for record in gallery[:3]]
    features = CropEncoder(retriever)(frames)
    assert features.dtype == np.float32 and features.shape == (3, retriever.fingerprint.dim)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(features, retriever.index.vectors(np.arange(3)), atol=1e-6)
    # Crops of a frame are views, of different sizes, here in OpenCV's order.
    bgr = [frame[..., ::-1] for frame in frames]
    np.testing.assert_allclose(CropEncoder(retriever, order="bgr")(bgr), features, atol=1e-6)
    assert not np.allclose(CropEncoder(retriever)(bgr), features, atol=1e-3)
    infrared = CropEncoder(retriever, modality="ir")(frames)
    np.testing.assert_allclose(infrared, retriever.embed_images(frames, Modality.IR), atol=1e-6)
    assert CropEncoder(retriever)([]).shape == (0, retriever.fingerprint.dim)
    with pytest.raises(ValueError, match=r"Crop 1 of 2 has shape \(0, 24, 3\)"):
        CropEncoder(retriever, empty="raise")([frames[0], frames[0][:0]])
    outside = [frames[0], frames[0][:0], frames[1]]
    rows = CropEncoder(retriever)(outside)
    np.testing.assert_allclose(rows[[0, 2]], features[:2], atol=1e-6)
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(CropEncoder(retriever, empty="skip")(outside), features[:2], atol=1e-6)
    assert CropEncoder(retriever)([frames[0][:0]]).shape == (1, retriever.fingerprint.dim)
    grey = frames[0][..., 0]
    encoder = CropEncoder(retriever, modality="ir", order="bgr")
    expected = retriever.embed_images([np.repeat(grey[..., None], 3, axis=2)], Modality.IR)
    for crop in (grey, grey[..., None]):
        np.testing.assert_allclose(encoder([crop]), expected, atol=1e-6)
    with pytest.raises(ValueError, match="uint16.*fixed window"):
        encoder([grey.astype(np.uint16)])
    with pytest.raises(ValueError, match="An empty crop gives nan, skip or raise, not 'zero'"):
        CropEncoder(retriever, empty="zero")
    assert repr(encoder).startswith("CropEncoder(Retriever(TVILFM ") and "images of" in repr(encoder)
    with pytest.raises(ValueError, match="rgb or bgr, not 'grb'"):
        CropEncoder(retriever, order="grb")
    with pytest.raises(ValueError, match="A camera sees rgb or ir, not text"):
        CropEncoder(retriever, modality="text")


def test_the_command_prints_and_draws(trained, stored, gallery, tmp_path, capsys):
    listed = tmp_path / "list.csv"
    listed.write_text("path,pid,camid\n" + "".join(f"{r.path},{r.pid},{r.camid}\n" for r in gallery))
    model = ["--config-file", str(trained / "config.yaml"), "--weights", str(trained / "model_final.pth")]
    index, sheet, query = tmp_path / "g.index", tmp_path / "new" / "sheet.png", ["--image", stored.query_paths[0]]
    assert retrieve.main([*model, "--gallery", str(listed), "--index", str(index)]) == 0
    assert f"{len(gallery)} images are indexed" in capsys.readouterr().out
    ask = [*query, "--text", "a man in red", "--top", "3", "--out", str(sheet), "--person", str(stored.query.pids[0])]
    assert retrieve.main([*model, "--index", str(index), *ask]) == 0
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 and [cell.strip() for cell in rows[0].split("|")[1:5]] == ["rank", "similarity", "ir", "text"]
    values = [float(cell) for cell in rows[2].split("|")[2:5]]
    assert values[0] == pytest.approx(values[1] + values[2], abs=2e-4)
    assert "Note: no text of the infrared image" in text and sheet.stat().st_size > 10_000
    assert retrieve.main([*model, "--gallery", str(Path(gallery[0].path).parent), "--text", "red", "--out", str(sheet)]) == 0
    with pytest.raises(SystemExit):
        retrieve.main([*model, *query])
    assert "give --gallery DIR, --index FILE, or both" in capsys.readouterr().err


def test_a_run_is_a_folder_that_is_searched_from_anywhere(trained, gallery, retriever, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = Retriever.from_run(trained)
    assert loaded.fingerprint == retriever.fingerprint
    with pytest.raises(FileNotFoundError, match="is no run: it has no config.yaml"):
        Retriever.from_run(tmp_path)
    (tmp_path / "config.yaml").write_text((trained / "config.yaml").read_text())
    with pytest.raises(FileNotFoundError, match="is not finished"):
        Retriever.from_run(tmp_path)


def test_several_images_of_one_person(retriever, stored):
    paths = stored.query_paths[:3]
    words = {"text": "a man in red", "infrared_text": "a man"}
    queries, note = retriever.embed_query(list(paths), **words)
    single = [retriever.embed_query(path, **words)[0] for path in paths]
    for member, vector in queries.items():
        mean = np.mean([one[member] for one in single], axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert "3 images of one person" in note
    one = retriever.embed_query([paths[0]], **words)
    assert all(np.array_equal(one[0][m], single[0][m]) for m in single[0]) and "images of one" not in one[1]
    with pytest.raises(ValueError, match="list of infrared images is empty"):
        retriever.search([])


def test_what_of_a_text_is_not_heard_is_said(retriever, stored):
    assert 'read up to "jacket a man in", the model' in retriever.search(text="a man in a red jacket " * 13).note
    assert "read up to" not in retriever.search(text="man " * 75).note
    for text in ("\u200b\u200d", "\ufeff", " \x00"):
        with pytest.raises(ValueError, match="A search needs an infrared image, a text, or both"):
            retriever.search(text=text)
        assert "no text" in retriever.search(stored.query_paths[0], text).note


def test_nobody_is_an_answer(retriever, stored):
    found = retriever.search(stored.query_paths[0], top=5)
    middle = found.hits[2].similarity
    assert retriever.search(stored.query_paths[0], top=5, threshold=middle).hits == found.hits[:3]
    nobody = retriever.search(stored.query_paths[0], threshold=1.5)
    assert nobody.hits == [] and f"nobody: the most similar image has {found.hits[0].similarity:.4f}" in nobody.note
    for wrong in (float("nan"), "0.5", True):
        with pytest.raises(ValueError, match="A threshold is a similarity"):
            retriever.search(stored.query_paths[0], threshold=wrong)
