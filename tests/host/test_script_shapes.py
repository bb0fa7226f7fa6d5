"""Shapes that scripts around fast-reid have: workers of a predictor, a loader with spawned workers, no guard."""

import pytest
from run_scripts import run, start, write
from tiny_market import write_market

pytest.importorskip("fastreid")

# As a predictor beside a script has it: workers that are processes of its own class, a start method set on import.
PREDICTOR = """
    import torch, torch.multiprocessing as mp
    from fastreid.engine import DefaultPredictor

    try:
        mp.set_start_method("spawn")
    except RuntimeError:
        pass

    class Parallel:
        class Stop: pass

        class Worker(mp.Process):
            def __init__(self, cfg, tasks, results):
                self.cfg, self.tasks, self.results = cfg, tasks, results
                super().__init__()

            def run(self):
                predictor = DefaultPredictor(self.cfg)
                while not isinstance(task := self.tasks.get(), Parallel.Stop):
                    self.results.put((task[0], predictor(task[1])))

        def __init__(self, cfg, workers):
            self.tasks, self.results, self.workers = mp.Queue(), mp.Queue(), []
            for gpu in range(max(workers, 1)):
                cfg = cfg.clone()
                cfg.defrost()
                cfg.MODEL.DEVICE = f"cuda: {gpu}" if workers else "cpu"
                self.workers.append(self.Worker(cfg, self.tasks, self.results))
            for worker in self.workers:
                worker.start()

        def __call__(self, batches):
            for task in enumerate(batches):
                self.tasks.put(task)
            found = dict(self.results.get(timeout=100) for _ in batches)
            for _ in self.workers:
                self.tasks.put(self.Stop())
            return torch.cat([found[number] for number in range(len(batches))])
"""
DEMO = """
    import sys
    import torch
    from fastreid.config import get_cfg
    from fastreid.data import build_reid_test_loader
    from fastreid.engine import DefaultPredictor
    from predictor import Parallel

    if __name__ == "__main__":
        cfg = get_cfg()
        cfg.merge_from_file(sys.argv[1])
        cfg.DATALOADER.NUM_WORKERS = 1
        torch.manual_seed(0)
        torch.save({"model": DefaultPredictor(cfg).model.state_dict()}, "weights.pth")
        cfg.MODEL.WEIGHTS = "weights.pth"
        loader, _ = build_reid_test_loader(cfg, dataset_name="Market1501")
        images = [batch["images"] for batch in loader]
        alone = torch.cat([DefaultPredictor(cfg)(batch) for batch in images])
        print("equal", torch.equal(Parallel(cfg, int(sys.argv[2]))(images), alone), tuple(alone.shape))
"""


def test_a_predictor_with_workers_and_a_loader_with_workers(tmp_path):
    write(tmp_path, predictor=PREDICTOR, demo=DEMO)
    config = write_market(tmp_path / "data", identities=4)
    tvilfm_run = ("-m", "tvilfm_plugin.cli", "run")
    lines = run("demo.py", config, 2, cwd=tmp_path, command=tvilfm_run, FASTREID_DATASETS=str(tmp_path / "data"))
    assert lines[-1] == "equal True (16, 512)"


def test_a_script_without_a_guard_fails_as_under_plain_python(tmp_path):
    write(
        tmp_path,
        script="""
            import multiprocessing as mp
            print("body", __name__, flush=True)
            def work(): print("worked", flush=True)
            child = mp.get_context("spawn").Process(target=work)
            child.start()
            child.join()
            print(child.exitcode)
        """,
    )
    plain, ours = start("script.py", cwd=tmp_path, command=()), start("script.py", cwd=tmp_path)
    assert ours.stdout == plain.stdout == "body __main__\nbody __mp_main__\n1\n"
    assert "freeze_support" in plain.stderr and "freeze_support" in ours.stderr
