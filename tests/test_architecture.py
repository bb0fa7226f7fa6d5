"""The shape of the package: imports look one way, the core knows no host, and nothing of one machine is written down."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tvilfm_plugin"
HOSTS = ("fastreid", "yacs")
# Everything may import what stands before it. Of the host's room, the data side may use `devices`, which knows torch only.
ORDER = (
    "modality", "files", "host.devices", "keys", "registries", "description", "evaluation", "data", "modeling", "checkpoints",
    "config", "host", "engine", "analysis", "synthetic", "captioning", "retrieval", "runtime", "export", "visualization",
    "cli", "__main__",
)  # fmt: skip
# Where fast-reid and yacs may appear.
SKIN = re.compile(
    r"registries\.py|(host|config|engine)/\w+\.py|keys/adding\.py|data/datasets/\w+\.py|data/(modal_)?loaders?\.py|checkpoints/\w+\.py"
    r"|evaluation/(evaluator|features)\.py|modeling/(backbones|identity_head|registration|registries|small_resnet|tvilfm|vi_baseline)\.py"
    r"|modeling/mip/(build|mip|optim)\.py|modeling/methods/(models|named_losses|yyds_model)\.py"
)
# What people script against without the host, at the least.
CORE = (
    "modality", "evaluation.ensemble", "evaluation.mer", "evaluation.protocols", "evaluation.ranking", "evaluation.report",
    "evaluation.summary", "analysis.statistics", "evaluation.stored",
    "data.augment.caj", "data.captions", "data.eval_set", "data.image_cache",
    "data.items", "data.paired", "data.samplers.pairs", "data.text_sources", "data.tokenizer", "synthetic.writer",
    "modeling.dual_stream", "modeling.fusion", "modeling.losses", "modeling.text_encoder", "modeling.visual_encoder",
    "captioning.colour_filter", "analysis.thresholds", "retrieval.hits", "retrieval.index", "retrieval.building",
    "visualization.rank_sheet",
)  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    """Name below the package -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


@cache
def imports(path: Path, everywhere: bool = True) -> tuple[str, ...]:
    """Modules that a file imports: anywhere, or only when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree)) if everywhere else [node for node in tree.body if not is_type_checking(node)]
    # What importlib is given: a string that is the name of a module of ours.
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return (*names, *(text for text in strings if text.removeprefix("tvilfm_plugin.") in modules()))


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def layer_of(name: str) -> str:
    """The entry of ORDER to which a module belongs: a room, or one module of a room that has a place of its own."""
    parts = name.split(".")
    own = ".".join(parts[:2])
    return own if own in ORDER else parts[0]


def test_imports_look_one_way():
    wrong = []
    for name, path in modules().items():
        layer = layer_of(name)
        assert layer in ORDER, f"{path} belongs to no layer"
        for target in imports(path):
            if target.startswith("tvilfm_plugin.") and target != "tvilfm_plugin.host":
                other = layer_of(target.removeprefix("tvilfm_plugin."))
                if other in ORDER and ORDER.index(other) > ORDER.index(layer):
                    wrong.append(f"{name} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_no_circles_between_files():
    files = modules()
    edges = {
        name: {t.removeprefix("tvilfm_plugin.") for t in imports(path) if t.startswith("tvilfm_plugin.")} & set(files) - {name}
        for name, path in files.items()
    }
    while free := {name for name, targets in edges.items() if not targets & set(edges)}:
        edges = {name: targets for name, targets in edges.items() if name not in free}
    # What is left lies on a circle, or above one.
    assert not edges, {name: sorted(targets & set(edges)) for name, targets in edges.items()}


def test_files_can_be_read_in_one_sitting():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert not {name: n for name, n in lines.items() if n > 400 and not name.startswith("synthetic.")}


def assert_works(code: str) -> None:
    """The code runs to its end in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, timeout=200, cwd=ROOT
    )
    assert done.returncode == 0 and done.stdout.endswith("works\n"), done.stderr[-3000:]


SATELLITES = ("analysis", "synthetic", "captioning", "retrieval", "runtime", "export", "visualization")


def test_the_plugin_works_without_its_satellites(tmp_path):
    """Each of them can be taken away: with all of them blocked both stages train, are evaluated and stored."""
    code = f"""
        import sys

        class Blocked:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name.startswith(tuple("tvilfm_plugin." + room for room in {SATELLITES})):
                    raise ModuleNotFoundError(f"{{name}} was taken away", name=name)

        sys.meta_path.insert(0, Blocked)
        sys.path.insert(0, {str(ROOT / "tests")!r})
        import tvilfm_plugin
        from pathlib import Path
        from tiny_runs import TinyRuns

        results = TinyRuns(Path({str(tmp_path)!r}))("run", "TEST.STORE", "True")
        assert "all/ensemble/R-1" in results, results
        assert list(Path({str(tmp_path)!r}).glob("run/evaluation/*/results.json"))
        print("works")
    """
    assert_works(code)


def test_tools_and_projects_are_never_imported():
    names = {path.stem for folder in ("tools", "projects", "tests") for path in (ROOT / folder).rglob("*.py")}
    for path in modules().values():
        assert not {target.split(".")[0] for target in imports(path)} & (names | {"tools", "projects", "tests"}), path


def test_the_host_appears_in_the_skin_only():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules().values()
        if any(target.split(".")[0] in HOSTS for target in imports(path))
    }
    assert not {path for path in users if not SKIN.fullmatch(path)}


def host_free() -> list[str]:
    """Modules whose import reaches no host, however indirectly."""
    files = modules()
    needs = {name for name, path in files.items() if any(t.split(".")[0] in HOSTS for t in imports(path, False))}
    while True:
        more = {
            name
            for name, path in files.items()
            if name not in needs
            and (
                any(t.removeprefix("tvilfm_plugin.") in needs for t in imports(path, False)) or name.rpartition(".")[0] in needs
            )
        }
        if not more:
            return [name for name in files if name not in needs and name not in ("__main__", "host.scripts")]
        needs |= more


def test_the_core_works_without_the_host():
    names = host_free()
    assert not set(CORE) - set(names), "these need the host, directly or through others"
    code = f"""
        import importlib, importlib.machinery

        find = importlib.machinery.PathFinder.find_spec
        hide = lambda name, *rest: None if name.split(".")[0] in {HOSTS} else find(name, *rest)
        importlib.machinery.PathFinder.find_spec = hide
        for name in {names}:
            importlib.import_module("tvilfm_plugin." + name)

        import numpy as np, torch
        from tvilfm_plugin.data.captions import Caption, CaptionBank
        from tvilfm_plugin.data.tokenizer import tokenize
        from tvilfm_plugin.evaluation.ensemble import ensemble, pack
        from tvilfm_plugin.evaluation.protocols import SYSU, Labels
        from tvilfm_plugin.evaluation.ranking import rank_metrics
        from tvilfm_plugin.modality import Modality
        from tvilfm_plugin.modeling.dual_stream import DualStream
        from tvilfm_plugin.modeling.fusion import FilteredAdd
        from tvilfm_plugin.modeling.losses import weighted_triplet

        labels = Labels(np.arange(3), np.ones(3, int))
        assert rank_metrics(1 - np.eye(3), labels, labels, SYSU).mAP == 1
        query = {{Modality.IR: torch.eye(3), Modality.TEXT: torch.eye(3)}}
        assert torch.equal(ensemble(query, list(query)), 2 * torch.eye(3)) and pack(query, list(query)).shape == (3, 6)
        assert weighted_triplet(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])) > 0
        assert tokenize(["a person"]).shape == (1, 77)
        assert CaptionBank({{"a.jpg": Caption("a person")}}, "here")["a.jpg"].text == "a person"
        assert FilteredAdd(dim=3)(torch.ones(1, 3), torch.ones(1, 3), torch.ones(1, 3)).tolist() == [[1, 1, 1]]
        import sys
        assert not {{name.split(".")[0] for name in sys.modules}} & set({HOSTS})
        print("works")
    """
    assert_works(code)


def test_evaluation_never_uses_an_approximate_index():
    """mAP and mINP need the whole list, and every number must be exact: what measures knows neither faiss nor an index."""
    measuring = ("evaluation", "data", "modeling", "engine", "visualization", "analysis")
    wrong = [
        f"{name} imports {target}"
        for name, path in modules().items()
        if name.split(".")[0] in measuring
        for target in imports(path)
        if target.split(".")[0] == "faiss" or target.startswith("tvilfm_plugin.retrieval")
    ]
    assert not wrong, "\n".join(wrong)


# --- what a repository should not hold -------------------------------------------------------------------------------


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_no_path_of_one_machine():
    # Put together here, so that this file does not find itself.
    places = [f"/{name}/" for name in ("work", "root", "Users")] + [".." + "/shared", f"{Path.home()}/", str(ROOT)]
    suffixes = {".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".cfg", ".json", ""}
    wrong = []
    for path in tracked():
        if path.suffix in suffixes and path.stat().st_size < 2_000_000:
            text = path.read_text(encoding="utf-8", errors="ignore")
            wrong += [f"{path.relative_to(ROOT)}: {place}" for place in places if place in text]
    assert not wrong, "\n".join(wrong)


def test_no_drawers_for_odds_and_ends():
    names = {"utils", "util", "common", "misc", "helpers", "core"}
    assert not [path for path in modules().values() if {path.stem, path.parent.name} & names]


def test_no_test_file_hides_another():
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted(names) == sorted(set(names)), "without __init__.py files, basenames must be unique"
