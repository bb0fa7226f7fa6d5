"""Scripts through `python -m tvilfm_plugin` are what they are under plain python, and what they start has the plugin."""

import os
import subprocess
import sys
import textwrap

import pytest
from run_scripts import ROOT, run, start, write

EVERYTHING = """
import dataclasses, functools, inspect, io, multiprocessing as mp, pickle, sys, typing, unittest

def square(x): return x * x

class Box:
    def __init__(self, value): self.value = value
    def add(self, x): return self.value + x
    def scaled(self, x, times): return self.value * x * times
    @classmethod
    def made(cls, x): return cls(x).add(1)

@dataclasses.dataclass
class Options:
    other: "Box" = None

class Case(unittest.TestCase):
    def test_that_it_runs(self): self.assertEqual(square(2), 4)

def pool(kind):
    with mp.get_context(kind).Pool(1) as workers:
        work = square, Box(2).add, functools.partial(Box(2).scaled, times=3), Box.made
        return [workers.map_async(each, range(3)).get(60) for each in work]

if __name__ == "__main__":
    print(len(pickle.dumps(square)), pickle.loads(pickle.dumps(Box(3))).value, pickle.loads(pickle.dumps(Options())))
    print(typing.get_type_hints(Options)["other"] is Box, inspect.getsource(Box).count("def"))
    import __main__
    print(__main__.square(3), __main__.__spec__, __main__.__package__, __name__, __doc__)
    print(*(pool(kind) for kind in ("fork", "spawn", "forkserver")))
    print(sys.argv, __file__, sys.path[0])
    stream = io.StringIO()
    ended = unittest.main(exit=False, argv=["tests"], testRunner=unittest.TextTestRunner(stream))
    print(ended.result.testsRun)
    sys.exit(3)
"""


def test_what_the_plugin_says_of_an_input_is_one_line_and_debug_shows_where(tmp_path):
    write(tmp_path, script="from fastreid.config import get_cfg\nget_cfg().merge_from_list(['SOLVER.BASE_RL', 1])")
    for debug in (False, True):
        done = start(*(["--debug"] if debug else []), "script.py", cwd=tmp_path)
        assert done.returncode == 2 and not done.stdout and ("Traceback" in done.stderr) == debug
        assert debug or done.stderr.startswith("python -m tvilfm_plugin: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("launcher", [("tvilfm_plugin",), ("tvilfm_plugin.cli", "run")], ids=" ".join)
def test_a_scripts_own_error_is_pythons(tmp_path, launcher):
    write(tmp_path, script="import json\ndef read():\n    return json.loads('{')\nread()")
    plain = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    words = [sys.executable, "-m", *launcher, tmp_path / "script.py"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (1, "", plain.stderr)


def test_a_script_is_what_it_is_under_plain_python(tmp_path):
    write(tmp_path, sub__in__script=EVERYTHING)
    words = "sub/script.py", "--flag", "two words"
    plain = run(*words, cwd=tmp_path, status=3, command=())
    assert run(*words, cwd=tmp_path, status=3) == plain
    assert len(plain) == 7 and plain[-2] == "1" or plain[-1] == "1"


def test_modules_packages_and_folders_run_too(tmp_path):
    shows = "import sys; print(__name__, __package__, __spec__.name, sys.argv[1:], __file__)"
    write(tmp_path, package__in____init__="", package__in__part=shows, package__in____main__=shows, folder__in____main__=shows)
    for words in (("-m", "package.part", "a"), ("-m", "package", "b"), ("folder", "c")):
        assert run(*words, cwd=tmp_path) == run(*words, cwd=tmp_path, command=())
    run("-m", "package.missing", cwd=tmp_path, status=2)
    run("-m", cwd=tmp_path, status=2)
    (tmp_path / "empty").mkdir()
    run("empty", cwd=tmp_path, status=2)


def test_whatever_a_script_starts_has_the_plugin(tmp_path):
    write(
        tmp_path,
        beside="import sys\ndef work(_=0): return 'tvilfm_plugin' in sys.modules\n",
        sitecustomize="print('the hidden one', flush=True)",
        script="""
            import multiprocessing as mp, subprocess, sys
            # Not only where the work begins: when the script is imported again.
            there = 'tvilfm_plugin' in sys.modules
            from beside import work
            def here(_): return there
            if __name__ == "__main__":
                for kind in ("spawn", "forkserver", "fork"):
                    with mp.get_context(kind).Pool(1) as pool:
                        print(kind, pool.map(work, [0]), pool.map(here, [0]))
                code = "import sys; print('process', 'tvilfm_plugin' in sys.modules, any('startup' in p for p in sys.path))"
                subprocess.run([sys.executable, "-c", code], check=True)
        """,
    )
    lines = run("script.py", cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(ROOT), str(tmp_path)]))
    # Processes that start at the same time may write into one line.
    assert "".join(lines).count("the hidden one") >= 3, "a sitecustomize of the user's own still runs, in every process"
    assert [line for line in lines if line and "hidden" not in line] == [
        *(f"{kind} [True] [True]" for kind in ("spawn", "forkserver", "fork")), "process True False"
    ]  # fmt: skip


def test_children_of_a_process_that_imported_the_plugin_have_it_too(tmp_path):
    write(
        tmp_path,
        script="""
            import multiprocessing as mp, os, sys
            def work(_): return "tvilfm_plugin" in sys.modules, "torch" in sys.modules
            if __name__ == "__main__":
                import tvilfm_plugin
                for kind in ("spawn", "forkserver"):
                    with mp.get_context(kind).Pool(1) as pool:
                        print(pool.map(work, [0]))
        """,
    )
    assert run("script.py", cwd=tmp_path, command=()) == ["[(True, False)]"] * 2


def test_a_checkout_of_the_host_is_named(tmp_path):
    write(tmp_path, fastreid__in____init__="__version__ = 'mine'", script="import fastreid; print(fastreid.__version__)")
    done = start("script.py", cwd=tmp_path)
    assert done.stdout == "mine\n" and f"fast-reid is the one in {tmp_path}" in done.stderr


@pytest.mark.parametrize("name", ["children", "importing", "presence", "gaps", "scripts", "processes", "replacing"])
def test_what_starts_first_needs_python_only(name):
    code = f"""
        import sys
        for name in ("fcntl", "grp", "resource", "termios", "torch", "numpy", "fastreid"):
            sys.modules[name] = None
        import tvilfm_plugin.host.{name}
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, check=True, timeout=60)
