"""croissant.json of a synthetic benchmark: it names what is there, and mlcroissant understands it."""

import hashlib
import json
from pathlib import Path

import pytest

from tvilfm_plugin.synthetic.writer import Spec, make_synthetic


@pytest.fixture(scope="module", params=["sysu", "regdb"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = Spec(request.param, ids=8, test_ids=4, height=32, test_images_rgb=9)
    return make_synthetic(spec, tmp_path_factory.mktemp("croissant") / "data", progress=False)


def pictures(made: Path) -> set[str]:
    return set(json.loads((made / "attributes.json").read_text(encoding="utf-8"))["images"])


def test_it_names_the_pictures_and_the_truth(made):
    truth, files = json.loads((made / "croissant.json").read_text(encoding="utf-8"))["distribution"]
    assert {path.relative_to(made).as_posix() for path in made.glob(files["includes"])} == pictures(made)
    assert truth["sha256"] == hashlib.sha256((made / truth["contentUrl"]).read_bytes()).hexdigest()


def test_mlcroissant_finds_it_valid_and_reads_every_jpeg(made):
    reader = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed; only it can say that the file is valid")
    described = reader.Dataset(str(made / "croissant.json"))  # raises if it is not valid
    if next(iter(pictures(made))).endswith(".bmp"):
        return  # which it does not open
    records = list(described.records("pictures"))
    assert {record["pictures/path"].decode() for record in records} == pictures(made)
    assert {record["pictures/pixels"].size for record in records} == {(16, 32)}
