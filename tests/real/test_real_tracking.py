"""A training in MLflow and Weights & Biases, both into files: read back by the packages, they hold what metrics.json holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_parts import CACHE, _fetch

pytest.importorskip("fastreid")

TRAIN = """
import sys, json
from pathlib import Path
sys.path.append(sys.argv[2])  # behind our own packages: nothing of ours is replaced
sys.path.insert(0, sys.argv[3])
import tvilfm_plugin
from tiny_runs import TinyRuns
runs = TinyRuns(Path(sys.argv[1]))
runs("run", "TRACKING.KIND", sys.argv[4], config=runs.stage1)
"""
READ = {
    "mlflow": """
import mlflow, json
client = mlflow.MlflowClient()
run, = mlflow.search_runs(output_format="list")
history = lambda name: [[one.step, one.value] for one in client.get_metric_history(run.info.run_id, name)]
metrics = {name: history(name) for name in run.data.metrics}
said = {"name": run.info.run_name, "seed": run.data.params["SEED"], "metrics": metrics}
""",
    "wandb": """
import glob, json
from wandb.proto.wandb_internal_pb2 import Record
data, said = open(glob.glob(sys.argv[1] + "/run/wandb/*/*.wandb")[0], "rb").read(), {"metrics": {}}
at, data_of, records = 7, b"", []  # LevelDB's log: blocks of 32 KiB, pieces with a checksum, a length and a type
while at + 7 <= len(data):
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768
        continue
    size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
    data_of, at = data_of + data[at + 7 : at + 7 + size], at + 7 + size
    if kind in (1, 4):
        records, data_of = [*records, Record.FromString(data_of)], b""
for record in records:
    if record.WhichOneof("record_type") == "run":
        said["name"] = record.run.display_name
        said["seed"] = next(one.value_json for one in record.run.config.update if one.key == "SEED")
    if record.WhichOneof("record_type") == "history":
        values = {(one.key or "/".join(one.nested_key)): json.loads(one.value_json) for one in record.history.item}
        for name, value in values.items():
            if not name.startswith("_"):
                said["metrics"].setdefault(name, []).append([values["_step"], value])
""",
}


@pytest.mark.parametrize("package, version", [("mlflow-skinny", "3.17.2"), ("wandb", "0.31.0")])
def test_a_trackers_run_is_metrics_json(package, version, tmp_path):
    packages = CACHE / f"{package}-{version}-installed"
    if not packages.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        _fetch([sys.executable, "-m", "pip", "install", "--target", str(packages), f"{package}=={version}"], CACHE, package)
    kind = package.partition("-")[0]
    words = [str(tmp_path), str(packages), str(Path(__file__).parents[1]), kind]
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    env |= {"MLFLOW_ALLOW_FILE_STORE": "true", "OMP_NUM_THREADS": "1"}
    script = f"{TRAIN}\n{READ[kind]}\nopen(sys.argv[1] + '/said.json', 'w').write(json.dumps(said))"
    done = subprocess.run([sys.executable, "-c", script, *words], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["name"] == "run" and said["seed"] == "3"
    expected: dict[str, list[list[float]]] = {}
    for row in map(json.loads, (tmp_path / "run" / "metrics.json").read_text().splitlines()):
        for name, value in row.items():
            if name != "iteration":
                expected.setdefault(name, []).append([row["iteration"], value])
    assert "total_loss" in expected and any(name.endswith("mAP") for name in expected)
    found = {name: dict(values) for name, values in said["metrics"].items()}
    assert {name: pytest.approx(dict(values)) for name, values in expected.items()} == found
