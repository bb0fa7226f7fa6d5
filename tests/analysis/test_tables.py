"""The paper's tables: planning, skipping and resuming of runs, and what is printed from stored evaluations."""

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_scripts import load_tool
from stored_runs import tiny_run

from tvilfm_plugin.analysis.published import published
from tvilfm_plugin.analysis.reranked import as_markdown, rerank_rows
from tvilfm_plugin.analysis.tables import RUNS, TABLES, as_csv, collect, latex, markdown
from tvilfm_plugin.evaluation.evaluator import distance_function
from tvilfm_plugin.evaluation.stored import StoredEvaluation

pytest.importorskip("fastreid")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    return load_tool("reproduce")


# --- printing ---------------------------------------------------------------------------------------------------------


def run(folder, **options):
    tiny_run(folder, **options)
    return folder / "evaluation" / "TriSYSUMM01"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: {seed: [run(folder / f"{name}{seed}", noise=max(0.3, 2.4 - 0.3 * n), seed=seed)] for seed in (0, 1)}
        for n, name in enumerate(RUNS)
    }


def result(found, table="table1", dataset="sysu", **options):
    return collect(TABLES[table], dataset, found, StoredEvaluation.load, resamples=200, **options)


def test_means_and_deviations_are_those_of_the_stored_results(found):
    line = next(line for line in result(found).lines if line.row.name == "all" and line.source == "oracle")
    stored = [StoredEvaluation.load(found["full"][seed][0]) for seed in (0, 1)]
    ours = [one.results["all/ensemble/mAP"] for one in stored]
    over_seeds, over_draws = line.over("training seeds", "mAP"), line.over("draws", "mAP")
    assert over_seeds.mean == pytest.approx(np.mean(ours)) and over_seeds.sd == pytest.approx(np.std(ours, ddof=1))
    trials = np.array([[[t.metrics.mAP for t in s] for s in one.evaluate("all/ensemble")] for one in stored])
    assert over_draws.sd == pytest.approx(100 * trials.mean(axis=(0, 1)).std(ddof=1)) and over_draws.n == 3
    assert line.over("text seeds", "mAP").n == 2


def test_paper_difference_and_a_row_without_oracle_beside(found):
    records = list(csv.DictReader(io.StringIO(as_csv(result(found)))))
    full = [r for r in records if r["row"] == "all" and r["metric"] == "R-1"]
    assert [r["text_source"] for r in full] == ["oracle", "self"]
    assert float(full[0]["paper"]) == 84.90 and full[1]["paper"] == ""
    assert float(full[0]["difference"]) == pytest.approx(float(full[0]["mean"]) - 84.90)
    for row in TABLES["table1"].rows:
        sources = {r["text_source"] for r in records if r["row"] == row.name}
        assert "oracle" in sources and sources - {"oracle"}, row.name
    text = markdown(result(found))
    assert "ours - paper" in text and "true identity" in text and "averages 3 draws, the paper 10" in text
    assert "no numbers for synthetic" in markdown(result(found, dataset="synthetic"))
    assert "\\toprule" in latex(result(found)) and "84.90" in latex(result(found))


def test_steps_are_tested_against_the_previous_row(found):
    steps = [step.row for step in result(found).steps if step.metric == "mAP"]
    assert "all: B -> +SFF (oracle)" in steps and "all: +SFF+MJL+MER -> all (oracle)" not in steps
    assert "all: +SFF+MJL+LLM -> all (oracle)" in steps
    assert not any("(none)" in step for step in steps), "the images stand in for a query; they are no step"
    second = [step.row for step in result(found, "table2").steps]
    assert "all: VI-ReID backbone, I->R -> TVI-LFM, I+T->R (oracle)" in second
    methods = result({**found, "deen": found["stage1"], "yyds": found["full"]}, "table2")
    against = {step.row for step in methods.steps}
    assert {"all: TVI-LFM, I+T->R -> DEEN (none)", "all: TVI-LFM, I+T->R -> YYDS, I+T->R (oracle)"} <= against
    text = markdown(methods)
    assert "paper, DEEN: TVI-LFM's tables; 384x144" in text and "YYDS + CMKR (RR)" in text and "85.54" in text
    assert "Published elsewhere" not in markdown(result(found))
    assert len(result(found, "table5").steps) == 4


def test_different_protocols_are_never_averaged(found, tmp_path):
    other = {**found, "full": {**found["full"], 2: [run(tmp_path / "x", seed=2, TVILFM__PRESET="released")]}}
    table = result(other, only=["all"])
    oracle = [line for line in table.lines if line.source == "oracle"]
    assert [line.seeds for line in oracle] == [(0, 1), (2,)] and "preset 'released'" in oracle[1].apart
    assert "not averaged" in markdown(table) and "rows differ in preset" in markdown(table)


def test_splits_are_averaged_within_a_training_seed(found):
    """RegDB: two splits of one seed, whose cards differ in the setting only."""

    def load(folder):
        stored = StoredEvaluation.load(folder)
        name = "trial2" if folder == found["full"][1][0] else "trial1"
        cards = {label: replace(card, setting=name, draws=3) for label, card in stored.cards.items()}
        return replace(stored, cards=cards, draws={name: stored.draws["all"]})

    splits = {name: {0: [folders[0][0], folders[1][0]]} for name, folders in found.items()}
    table = collect(TABLES["table3"], "regdb", {**splits, "stage1": splits["full"]}, load, resamples=200)
    line = next(line for line in table.lines if line.source == "oracle" and line.row.run == "full")
    assert line.setting == "trials" and line.paper("regdb")["R-1"] == 91.38
    ours = [StoredEvaluation.load(folder).results["all/ensemble/mAP"] for folder in splits["full"][0]]
    assert line.over("training seeds", "mAP").mean == pytest.approx(np.mean(ours)) and line.over("draws", "mAP").n == 6
    assert "over splits" in markdown(table)
    assert {step.test.n for step in table.steps} == {11}, "a person of several splits is one person"


def test_missing_runs_are_named(found):
    table = result({k: v for k, v in found.items() if k != "sff"}, expected=(0, 1, 7))
    assert "MISSING: +SFF, training seed 0, 1, 7." in table.notes and "MISSING: B, training seed 7." in table.notes


def test_published_numbers():
    assert published("llcm", "all", "b") == {"R-1": 52.63, "mAP": 58.82, "mINP": 55.43}
    assert published("sysu", "indoor", "sff") == {} == published("synthetic", "all", "tvilfm")
    names = {row.published for name, table in TABLES.items() for row in table.rows if name != "mip" and row.published}
    assert all(published("sysu", "all", name) for name in names)


# --- running ----------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def test_runs_are_planned_skipped_evaluated_again_and_resumed(tool, tiny, tmp_path, monkeypatch, capsys):
    """With the trainings in this process: importing everything again takes longer than they do."""
    from fastreid.engine import default_argument_parser

    from tvilfm_plugin.engine import TriTrainer

    started, stop = [], []

    class Stoppable(TriTrainer):
        def run_step(self):
            super().run_step()
            if self.cfg.OUTPUT_DIR in stop and self.iter == 7:
                raise Stopped

    def start(command, log):
        started.append(command)
        with monkeypatch.context() as patch, tiny.environment():
            patch.setattr(tiny.tool, "TriTrainer", Stoppable)
            try:
                tiny.tool.main(default_argument_parser().parse_args(command[2:]))
            except Stopped:
                log.write_text("stopped")
                return 1
        return 0

    def reproduce(*more):
        started.clear()
        words = ["table1", "--dataset", "sysu", "--config", str(tiny.config), "--out", str(tmp_path), "--resamples", "100"]
        texts = ["TEST.TEXT_SOURCES", "('oracle','witness')", "TEST.TEXT_SEEDS", "(0,)"]
        status = tool.main([*words, "--only", "B", "+SFF", *more, *texts])
        return status, capsys.readouterr().out

    monkeypatch.setattr(tool, "start", start)
    folders = {name: tmp_path / "seed0" / name for name in ("stage1", "b", "sff")}
    status, out = reproduce("--dry-run")
    assert status == 0 and not started and out.count(": train\n") == 3 and not any(tmp_path.iterdir())

    stop.append(str(folders["sff"]))
    status, out = reproduce()
    assert status == 1 and f"{folders['sff']}: FAILED" in out and "MISSING: +SFF, training seed 0." in out
    assert len(started) == 3 and "+SFF " not in (tmp_path / "table1.csv").read_text()
    assert all(f"{folders['stage1']}/model_final.pth" in command for command in started[1:])

    stop.clear()
    status, out = reproduce()
    assert status == 0 and len(started) == 1 and "--resume" in started[0] and f"{folders['sff']}: resume" in out
    assert "Starting training from epoch 1" in (folders["sff"] / "log.txt").read_text()
    assert "all: B -> +SFF (witness)" in out and "indoor: B -> +SFF (oracle)" in out and "72.52" in out
    assert {path.name for path in tmp_path.glob("table1.*")} == {"table1.md", "table1.csv", "table1.tex", "table1.png"}

    assert reproduce()[0] == 0 and not started
    weights = (folders["b"] / "model_final.pth").read_bytes()
    status, _ = reproduce("DATASETS.MODES", "('all',)")
    assert status == 0 and len(started) == 3 and all("--eval-only" in command for command in started)
    assert (folders["b"] / "model_final.pth").read_bytes() == weights
    assert "## indoor" not in (tmp_path / "table1.md").read_text()

    # Another learning rate is another training of every run.
    assert reproduce("--dry-run", "SOLVER.BASE_LR", "0.001")[1].count(": train\n") == 3
    # So are other weights of stage 1.
    (folders["stage1"] / "model_final.pth").write_bytes(weights)
    out = reproduce("--dry-run", "DATASETS.MODES", "('all',)")[1]
    assert f"{folders['stage1']}: finished" in out and out.count(": train\n") == 2


def test_rows_are_re_ranked_apart(found):
    """Marked RR, with their gain and cost; a query alone gives what it gives among others where no other query is used."""
    made = rerank_rows(TABLES["table1"], found, StoredEvaluation.load, distance_function, ["gallery-only", "divided"], ["all"])
    assert {(one.kind, one.source) for one in made} >= {("gallery-only", "oracle"), ("divided", "self")}
    one = next(one for one in made if one.kind == "gallery-only" and one.source == "oracle")
    stored = [StoredEvaluation.load(folders[0]) for folders in found["full"].values()]
    plain = np.mean([each.results["all/ensemble/mAP"] for each in stored])
    assert one.means["mAP"] - one.gain["mAP"] == pytest.approx(plain) and one.milliseconds > 0
    text = as_markdown(made)
    assert "all (RR)" in text and "nothing is tuned" in text and "which no search has" in text


def test_every_method_of_the_comparison_has_a_run(tool):
    jobs = {job.run.name: job for job in tool.plan(TABLES["table2"], tool.parse(["table2", "--dataset", "synthetic"]))}
    assert {"agw", "caj", "ddag", "mmn", "deen", "yyds", "stage1", "full", "tvilfm_deen"} == set(jobs)
    assert jobs["tvilfm_deen"].parent is jobs["deen"] and jobs["full"].parent is jobs["stage1"]
    assert {name: job.cfg().MODEL.META_ARCHITECTURE for name, job in jobs.items()} == {
        "agw": "VIBaseline", "caj": "VIBaseline", "ddag": "DDAG", "mmn": "MMN", "deen": "DEEN", "yyds": "YYDS",
        "stage1": "VIBaseline", "full": "TVILFM", "tvilfm_deen": "TVILFM",
    }  # fmt: skip


def test_ten_splits_are_ten_models_and_from_scratch_has_the_schedule_of_stage_1(tool):
    ours = ["VI-ReID backbone, I->R", "TVI-LFM, I+T->R"]
    args = tool.parse(["table3", "--dataset", "regdb", "--seeds", "0", "1", "--only", *ours])
    jobs = tool.plan(TABLES["table3"], args)
    assert len(jobs) == 40 and len({job.folder for job in jobs}) == 40
    assert {job.cfg().DATASETS.TRIAL for job in jobs[::4]} == set(range(1, 11))
    args = tool.parse(["table5", "--dataset", "sysu", "STAGE1.MODEL.BACKBONE.PRETRAIN_PATH", "imagenet.pth"])
    scratch = next(job for job in tool.plan(TABLES["table5"], args) if job.run.name == "scratch")
    cfg = scratch.cfg()
    assert cfg.SOLVER.MAX_EPOCH == 120 and cfg.TVILFM.FROM_SCRATCH and list(cfg.SOLVER.STEPS) == [40, 60, 100]
    assert cfg.MODEL.BACKBONE.PRETRAIN and cfg.MODEL.BACKBONE.PRETRAIN_PATH == "imagenet.pth" and scratch.parent is None
    drawn = tool.plan(TABLES["table5"], tool.parse(["table5", "--dataset", "synthetic"]))
    begins = next(job for job in drawn if job.run.name == "scratch").cfg().MODEL
    assert begins.DUAL_STREAM.WEIGHTS == "example" == begins.TEXT.WEIGHTS, "the model that stage 1 starts from, too"


def test_stage_1_has_the_backbone_of_the_config(tool):
    config = ROOT / "projects" / "TVILFM" / "configs" / "sysu_osnet.yml"
    args = tool.parse(["table1", "--dataset", "sysu", "--config", str(config), "--seeds", "0"])
    first, *others = tool.plan(TABLES["table1"], args)
    assert first.run is tool.STAGE1 and len(others) == 4
    for job in (first, *others):
        assert (job.cfg().MODEL.DUAL_STREAM.BASE, job.cfg().MODEL.BACKBONE.FEAT_DIM) == ("build_osnet_backbone", 512)


def test_mips_parts_differ_in_nothing_else_and_text_starts_from_all_of_them(tool):
    jobs = {job.run.name: job for job in tool.plan(TABLES["mip"], tool.parse(["mip", "--dataset", "synthetic"]))}
    cfgs = {name: job.cfg() for name, job in jobs.items()}
    text = cfgs.pop("mip_text")
    assert jobs["mip_text"].parent is jobs["mip_all"] and text.MODEL.META_ARCHITECTURE == "TVILFM"
    assert "mip_all/model_final.pth" in " ".join(jobs["mip_text"].command("train")) and len(jobs) == 6
    parts = ("MODALITY_PROMPTS", "INSTANCE_PROMPTS", "INSTANCE_TYPE", "IAEL_WEIGHT")
    assert [tuple(cfg.MODEL.MIP[key] for key in parts) for cfg in cfgs.values()] == [
        (0, 0, "generator", 0.5), (4, 0, "generator", 0.5), (4, 4, "generator", 0.0), (4, 4, "fusion", 0.0),
        (4, 4, "generator", 0.5),
    ]  # fmt: skip
    for cfg in cfgs.values():
        assert cfg.MODEL.META_ARCHITECTURE == "MIP"
        cfg.OUTPUT_DIR, cfg.TVILFM.OVERRIDES = "", []
        for key in parts:
            cfg.MODEL.MIP[key] = ""
    assert len({cfg.dump() for cfg in cfgs.values()}) == 1


def test_a_part_of_mip_is_tested_against_the_one_before(found):
    table = result(found, "mip", "synthetic")
    steps = [step.row for step in table.steps if step.metric == "mAP" and step.row.startswith("all")]
    assert [step.split(": ", 1)[1] for step in steps] == [
        "prompt-free baseline -> MPL (none)", "MPL -> MPL + IPG, generator (none)", "MPL -> MPL + IPG, fusion (none)",
        "MPL + IPG, generator -> all (generator, IAEL) (none)", "all (generator, IAEL) -> all + text (oracle)",
        "all (generator, IAEL) -> all + text (self)",
    ]  # fmt: skip
    assert "no numbers for synthetic" in markdown(table) and "ours - paper" not in markdown(table)


@pytest.mark.parametrize(
    "words, message",
    [
        (["mip", "--dataset", "synthetic", "--config", "x.yml"], "has config files of its own"),
        (["table2", "--dataset", "llcm"], "is about sysu"),
        (["table1", "--dataset", "sysu", "--only", "C"], "has no row C"),
        (["table1", "--dataset", "sysu", "SEED", "3"], "SEED is what this tool sets"),
        (["table1", "--dataset", "sysu", "--trials", "3"], "RegDB's splits"),
    ],
)
def test_what_cannot_be_made_is_refused(tool, capsys, words, message):
    with pytest.raises(SystemExit):
        tool.parse(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("dataset, remedy", [("synthetic", "tvilfm pretrain vit"), ("sysu", "MODEL.BACKBONE.PRETRAIN_PATH")])
def test_weights_that_trainings_begin_with_are_missed_before_the_first_one(tool, tmp_path, monkeypatch, dataset, remedy):
    words = ["mip", "--dataset", dataset, "--out", str(tmp_path), "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "vit.pth")]
    monkeypatch.setattr(tool, "start", lambda command, log: pytest.fail("a training was begun"))
    with pytest.raises(FileNotFoundError, match=f"vit.pth is missing, and 5 of the trainings begin with it; .*{remedy}"):
        tool.make_table(tool.parse(words), tool.start)
    assert not any(tmp_path.iterdir())


def test_start_gives_the_exit_status_and_keeps_the_output(tool, tmp_path):
    assert tool.start([sys.executable, "-c", "print('said'); raise SystemExit(3)"], tmp_path / "log") == 3
    assert (tmp_path / "log").read_text() == "said\n"
