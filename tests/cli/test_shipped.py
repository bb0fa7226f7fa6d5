"""Configs and the files that they name are found from anywhere."""

import pytest

from tvilfm_plugin.files.shipped import PACKAGE, find_config, find_shipped, homes, shipped_configs, short_name


def test_names_of_shipped_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = homes()[0] / "projects"
    for name in ("sysu.yml", "sysu", "TVILFM/sysu.yml", "tvilfm/sysu", "projects/TVILFM/configs/sysu.yml"):
        assert find_config(name) == project / "TVILFM" / "configs" / "sysu.yml", name
    assert find_config("MIP/sysu.yml") == project / "MIP" / "configs" / "sysu.yml"
    assert find_config("configs/Base-VI.yml") == homes()[0] / "configs" / "Base-VI.yml"
    assert find_shipped("configs/text/tiny.json") == homes()[0] / "configs" / "text" / "tiny.json"
    for path in shipped_configs():
        assert find_config(short_name(path)) == path


def test_the_current_folder_comes_first_and_paths_are_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sysu.yml").write_text("SEED: 1\n")
    assert find_config("sysu.yml").resolve() == tmp_path / "sysu.yml" == find_config(tmp_path / "sysu.yml")
    assert find_shipped("tower.json") is None


def test_what_is_missing_is_named_with_what_is_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config file 'syus.yml' in .*Did you mean sysu"):
        find_config("syus.yml")
    with pytest.raises(FileNotFoundError, match="No config file is named"):
        find_config("")


def test_the_checkout_comes_before_the_package():
    assert homes()[0] == PACKAGE.parent or not (PACKAGE.parent / "projects").is_dir()
