"""Which epoch's weights count, whom they were trained on, and what the protocol card says of both."""

import json

import pytest
import torch
from tiny_runs import ROOT, SMALL, TinyRuns, same, weights
from tiny_trees import write_regdb

pytest.importorskip("fastreid")

from tvilfm_plugin.checkpoints.loading import read_checkpoint
from tvilfm_plugin.config import get_cfg, read_config, stage1_config
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.engine.epoch_rule import check_epoch_rule, rank_1
from tvilfm_plugin.engine.finished import finished_weights, read_scores
from tvilfm_plugin.engine.run import recipe
from tvilfm_plugin.evaluation.mer import unit_after
from tvilfm_plugin.evaluation.provenance import LeakError
from tvilfm_plugin.evaluation.ranking import rank_metrics
from tvilfm_plugin.evaluation.stored import StoredEvaluation

ON_TEST = "best Rank-1 on the test set"


def card(out, label, dataset="TriSYSUMM01"):
    return json.loads((out / "evaluation" / dataset / "results.json").read_text())["cards"][label]


@pytest.fixture(scope="module")
def released(tiny):
    """Preset released at the tiny size: both stages, the epoch chosen between two on the test set."""
    small = SMALL.replace("TOWER", str(tiny.config.with_name("tower.json"))).replace("TEXT_SEEDS: [0, 1]", "TEXT_SEEDS: [1]")
    small = small.replace("EVAL_PERIOD: 2", "EVAL_PERIOD: 1")
    small = small.replace("BASE_LR: 0.002", "BASE_LR: 0.02").replace("[witness, oracle, self, wrong]", "[oracle, witness]")
    first, second = (tiny.folder / name for name in ("released1.yml", "released2.yml"))
    first.write_text(f"_BASE_: {ROOT}/configs/Base-VI-released.yml\n{small}")
    second.write_text(f"_BASE_: {ROOT}/configs/Base-TVILFM-released.yml\nTVILFM: {{STAGE1: released1.yml}}\n{small}")
    results = tiny("released", "DATASETS.MODES", "('all',)", "TEST.IMAGE_PROTOCOL", "RegDB", config=second)
    return tiny.folder / "released", results


def test_the_best_epoch_ends_both_stages(released):
    out, results = released
    for folder, label in ((out / "stage1", "all/infrared"), (out, "all/ensemble")):
        scores = read_scores(str(folder))
        assert list(scores) == ["0", "1"]
        best = torch.load(folder / "model_best.pth", weights_only=True)
        assert best["epoch"] == int(max(scores, key=scores.get)), "the earliest of the best"
        stored = json.loads((folder / "evaluation/TriSYSUMM01/results.json").read_text())
        assert stored["results"][f"{label}/R-1"] == max(scores.values())
        assert card(folder, label)["epoch_rule"] == ON_TEST and card(folder, label)["preset"] == "released"
        assert read_checkpoint(folder / "model_best.pth")[1].epoch_rule == ON_TEST
        assert read_checkpoint(folder / "model_final.pth")[1].epoch_rule == "last epoch"
    assert results["all/ensemble/R-1"] == max(read_scores(str(out)).values())
    assert "oracle" in card(out, "all/ensemble")["text_source"] and card(out, "all/ensemble@witness")


def test_stage_2_keeps_stage_1s_best_pooling_and_neck_while_the_backbone_drifts(released):
    out, _ = released
    first, second = weights(out / "stage1" / "model_best.pth"), weights(out / "model_best.pth")
    kept = {name: value for name, value in second.items() if name.startswith("stage1.")}
    assert len(kept) == 6 and torch.equal(kept["stage1.pool.p"], first["visual.pool.p"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(kept[f"stage1.neck.{name}"], first[f"heads.neck.{name}"])
        assert not torch.equal(kept[f"stage1.neck.{name}"], second[f"heads.neck.{name}"])
    visual = [name for name in first if name.startswith("visual.")]
    drifted = {name.rsplit(".", 1)[1] for name in visual if not torch.equal(first[name], second[name])}
    assert drifted == {"running_mean", "running_var", "num_batches_tracked"}


def test_the_row_without_text_has_its_own_neck_and_rules(released):
    out, results = released
    folder = out / "evaluation" / "TriSYSUMM01"
    tensors, stored = torch.load(folder / "parts.pt", weights_only=True), StoredEvaluation.load(folder)
    second = weights(out / "model_best.pth")
    neck = torch.nn.BatchNorm1d(64).eval()
    neck.load_state_dict({name.removeprefix("stage1.neck."): v for name, v in second.items() if "stage1.neck." in name})
    with torch.no_grad():
        query, gallery = (torch.nn.functional.normalize(neck(tensors[f"image_{n}"])) for n in ("query", "gallery"))
    shared = unit_after(tensors["neck_scale"], tensors["neck_shift"])
    assert not torch.allclose(query, shared(tensors["query"]), atol=1e-3)
    by_hand, sysu = [], []
    for drawn in stored.draws["all"]:
        labels = type(stored.gallery)(stored.gallery.pids[drawn], stored.gallery.camids[drawn])
        distance = -query @ gallery[drawn].T
        by_hand.append(100 * rank_metrics(distance, stored.query, labels, stored.image_protocol).mAP)
        sysu.append(100 * rank_metrics(distance, stored.query, labels, stored.protocol).mAP)
    assert results["all/infrared/mAP"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-3)
    assert abs(sum(sysu) - sum(by_hand)) > 1e-3, "the rules matter here"
    again = stored.evaluate("all/infrared")
    assert sum(100 * t.metrics.mAP for t in again[0]) / 2 == pytest.approx(results["all/infrared/mAP"], abs=1e-9)
    infrared, ensemble = card(out, "all/infrared"), card(out, "all/ensemble")
    assert (infrared["rules"], infrared["cmc"]) == ("RegDB", "images")
    assert infrared["note"] == "scored by the rules of RegDB; through pooling and neck of stage 1"
    assert (ensemble["rules"], ensemble["cmc"]) == ("SYSU-MM01", "identities")


def test_a_finished_run_is_resumed_to_the_same_result_and_an_interrupted_choice_is_completed(tiny, released):
    out, results = released
    config, options = tiny.folder / "released2.yml", ("DATASETS.MODES", "('all',)", "TEST.IMAGE_PROTOCOL", "RegDB", "--resume")
    assert tiny("released", *options, config=config) == results
    evaluated = tiny("released_eval", "--eval-only", "MODEL.WEIGHTS", out / "model_best.pth", *options[:-1], config=config)
    assert evaluated == results and card(tiny.folder / "released_eval", "all/ensemble") == card(out, "all/ensemble")
    scores = read_scores(str(out))
    # As if it had been stopped after the last checkpoint, before its evaluation.
    (out / "epochs.json").write_text(json.dumps({name: scores[name] for name in ("0",)}))
    cfg = read_config(config)
    cfg.OUTPUT_DIR = str(out)
    assert finished_weights(cfg) == ""
    assert tiny("released", *options, config=config) == results
    assert read_scores(str(out)) == scores and finished_weights(cfg).endswith("model_best.pth")


def test_selection_on_validation_identities(tiny):
    options = ("SOLVER.EPOCH_RULE", "validation", "TEST.EVAL_PERIOD", 1, "SOLVER.IMS_PER_BATCH", 4)
    results = tiny("validated", *options, "DATASETS.MODES", "('all',)", config=tiny.stage1)
    out = tiny.folder / "validated"
    state, record = read_checkpoint(out / "model_best.pth")
    assert record.trained_on[0].identities == (1, 4) and len(state["heads.classifier.weight"]) == 2
    val, test = (card(out, "all/infrared", f"TriSYSUMM01{suffix}") for suffix in ("-val", ""))
    assert val["dataset"] == "Tri-SYSU-MM01 (validation identities)" and test["dataset"] == "Tri-SYSU-MM01"
    assert test["epoch_rule"] == "best Rank-1 on the validation identities"
    lines = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    key = "validation/all/infrared/R-1"
    assert read_scores(str(out))["1"] == [line for line in lines if key in line][-1][key]
    assert lines[-1]["all/infrared/R-1"] == results["all/infrared/R-1"]
    stored = json.loads((out / "evaluation/TriSYSUMM01-val/results.json").read_text())
    assert {path.split("/")[-2] for path in stored["query_paths"]} == {"0002", "0007"}

    # Weights that the validation identities trained are not tested on them.
    with pytest.raises(LeakError, match="unless SOLVER.EPOCH_RULE is validation"):
        tiny("all_ids", "TEST.SPLIT", "val", "SOLVER.EPOCH_RULE", "last", config=tiny.stage1)


def test_rules_that_cannot_be_followed():
    cfg = get_cfg()
    cfg.SOLVER.EPOCH_RULE = "best"
    with pytest.raises(ValueError, match="choices are last, validation, test"):
        check_epoch_rule(cfg)
    cfg.SOLVER.EPOCH_RULE = "test"
    with pytest.raises(ValueError, match="Only preset released does that"):
        check_epoch_rule(cfg)
    cfg.TVILFM.PRESET, cfg.TEST.EVAL_PERIOD = "released", 0
    with pytest.raises(ValueError, match="set TEST.EVAL_PERIOD to 1 or more"):
        check_epoch_rule(cfg)
    cfg.TEST.EVAL_PERIOD, cfg.DATASETS.TESTS = 2, ("TriSYSUMM01",)
    check_epoch_rule(cfg)


def test_rank_1_of_the_first_setting():
    assert rank_1({"all/infrared/R-1": 1.0, "all/ensemble/R-1": 3.0, "indoor/ensemble/R-1": 5.0, "metric": 7.0}) == 3.0
    assert rank_1({"validation/all/infrared/R-1": 1.0, "metric": 7.0}) == 1.0
    assert rank_1({"TriLLCM": {"all/visible/R-1": 2.0}, "TriRegDB": {"all/visible/R-1": 9.0}}) == 2.0


def test_the_rule_belongs_to_the_recipe_of_stage_1():
    cfg = read_config(ROOT / "projects/TVILFM/configs/sysu_released.yml")
    first = stage1_config(cfg)
    assert recipe(first)["SOLVER.EPOCH_RULE"] == "test, every 2 epochs"
    cfg.merge_from_list(["SOLVER.EPOCH_RULE", "last"])
    assert "SOLVER.EPOCH_RULE" not in recipe(stage1_config(cfg))


# --- RegDB: ten splits, ten models ------------------------------------------------------------------------------------


def test_a_model_of_another_split_is_refused(tmp_path):
    runs = TinyRuns(tmp_path)
    write_regdb(tmp_path / "data", train_ids=(5, 40, 193), test_ids=(7, 12, 171))
    regdb = ("DATASETS.NAMES", "('TriRegDB',)", "DATASETS.TESTS", "('TriRegDB',)", "SOLVER.IMS_PER_BATCH", 4,
             "SOLVER.MAX_EPOCH", 1, "TEST.TEXT_SOURCES", "('oracle', 'self')")  # fmt: skip
    runs("split1", *regdb, config=runs.stage1)
    final = tmp_path / "split1" / "model_final.pth"
    _, record = read_checkpoint(final)
    (training,) = record.trained_on
    assert (training.dataset, training.trial, training.identities) == ("regdb", 1, (5, 40, 193))
    stored = torch.load(final, weights_only=True)["provenance"]["trained_on"][0]
    assert stored["sha256"] == training.sha256 and record.epoch_rule == "last epoch"

    evaluate = ("--eval-only", "MODEL.WEIGHTS", final, *regdb)
    assert runs("ok", *evaluate, config=runs.stage1)["trial1/infrared/R-1"] >= 0
    assert card(tmp_path / "ok", "trial1/infrared", "TriRegDB")["gallery_source"] == "every test image"
    with pytest.raises(LeakError, match="trained on 3 of the 3 identities .* split 2 of regdb tests: training used split 1"):
        runs("leak", *evaluate, "DATASETS.TRIAL", 2, config=runs.stage1)
    with pytest.raises(LeakError, match="training used split 1"):
        runs("stage2", "MODEL.WEIGHTS", final, *regdb, "DATASETS.TRIAL", 2)
    # The stock script loads the weights itself.
    cfg = read_config(runs.stage1)
    cfg.merge_from_list([*map(str, regdb), "MODEL.WEIGHTS", str(final), "DATASETS.TRIAL", "2", "MODEL.HEADS.NUM_CLASSES", "3"])
    model = TriTrainer.build_model(cfg)
    model.load_state_dict(weights(final))
    with runs.environment(), pytest.raises(LeakError):
        TriTrainer.test(cfg, model)
    assert same(weights(final), model.state_dict())
