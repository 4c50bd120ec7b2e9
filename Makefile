# The two commands of the README, and what developers use beside them. Everything goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# checkov has pins of its own, which do not fit those of this project.
CHECKOV := .venv-checkov
# Cached bytecode makes every later start quicker; some machines switch it off.
unexport PYTHONDONTWRITEBYTECODE
SECONDS ?= 60

TARGETS ?= batch api spark luigid
# The extras whose packages are in the lock file; pyspark has a file of its own, because it is large.
LOCKED := postgresql mysql s3 gs abfs api serving
LOCK = $(abspath $(BIN))/uv pip compile --quiet --no-config --no-header --no-annotate --no-emit-index-url \
	--generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 --override overrides.txt

CORPUS ?= ../shared/data/SMSSpamCollection

.PHONY: help score watch test test-slow test-images image push lock dist docs drill quality bench bench-quick bench-workers bench-serve \
  bench-spark gpu lint lint-kubernetes format audit fuzz clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 17

score: $(VENV)/installed  ## run the whole chain on the bundled sample and show what happened
	$(BIN)/luigi --module pipeline ScoreBatch
	@$(BIN)/spamscore summary

watch: $(VENV)/installed  ## run the night with Luigi's page beside it, until ^C: make watch WATCH='TrainModel'
	$(BIN)/spamscore watch $(WATCH)

test: $(VENV)/installed-test  ## run the tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/installed-test  ## run the long tests that `make test` leaves out: faults of Spark, of other machines
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

test-images: $(VENV)/installed-images  ## build images with podman, as root, and run nights in them; all images: make test-images SLOW=1
	PYTHONPATH=$(CURDIR) PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m pytest -n 0 tests/images $(if $(SLOW),-m '')

image: $(VENV)/installed-images  ## build the container images: make image TARGETS='batch api'
	deploy/docker/build.sh $(TARGETS)

push: $(VENV)/installed-images  ## push the images, print their digests: make push REGISTRY=registry.internal/spam
	PATH=$(abspath $(BIN)):$$PATH deploy/docker/push.sh '$(REGISTRY)' $(TARGETS)

lock: $(VENV)/installed-images  ## write the versions and hashes of the images' packages to deploy/docker/*.lock
	cd deploy/docker && $(LOCK) --output-file requirements.lock $(LOCKED:%=--extra %) ../../setup.py requirements.in
	cd deploy/docker && $(LOCK) --output-file requirements-spark.lock --constraint requirements.lock requirements-spark.in

dist: $(VENV)/installed-test  ## build wheel and sdist into dist/, check them, and run the wheel in an empty environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; wheel=$$(realpath dist/*.whl); cd "$$folder"; \
	  $(PYTHON) -m venv venv; venv/bin/pip install --quiet --disable-pip-version-check "$$wheel"; \
	  venv/bin/luigi --module pipeline ScoreBatch; venv/bin/spamscore summary

docs: $(VENV)/installed-docs  ## build the documentation site into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --keep-going --fresh-env --write-all --quiet docs docs/_build/html
	@echo 'The site: docs/_build/html/index.html'

drill: $(VENV)/installed-test  ## kill and disturb the whole chain, up to an hour: make drill DRILL='--seed 7'
	PYTHONPATH=tests/drivers $(BIN)/python -m drill $(DRILL)

quality: $(VENV)/installed  ## compare the network with classical models, write docs/quality.md: make quality CORPUS=file [OTHERS=folder]
	$(BIN)/python benchmarks/quality $(CORPUS) $(if $(OTHERS),--others $(OTHERS))

bench: $(VENV)/installed-test  ## measure how fast a night is, write docs/performance.md: make bench CORPUS=file
	PYTHONPATH=. $(BIN)/python benchmarks/performance $(CORPUS)

bench-quick: $(VENV)/installed-test  ## the same from less, in under three minutes; prints the table
	PYTHONPATH=. $(BIN)/python benchmarks/performance $(CORPUS) --quick --folder .bench

bench-workers: $(VENV)/installed-test  ## measure training with two workers: make bench-workers CORPUS=file
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/workers $(CORPUS)

bench-serve: $(VENV)/installed-test  ## measure how fast the model answers online: make bench-serve CORPUS=file
	PYTHONPATH=$(CURDIR):benchmarks/performance $(BIN)/python benchmarks/serving $(CORPUS)

bench-spark: $(VENV)/installed-test  ## measure scoring on a Spark cluster of this machine: make bench-spark CORPUS=file
	PYTHONPATH=$(CURDIR):benchmarks/performance:tests/drivers $(BIN)/python benchmarks/spark $(CORPUS)

gpu: $(VENV)/installed  ## check training and scoring on this machine's GPUs: make gpu GPU='--devices gpu:1'
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/gpu $(GPU)

lint: $(VENV)/installed-lint  ## check style, types and the import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-cache

lint-kubernetes: $(CHECKOV)/installed  ## check deploy/kubernetes against the policies of checkov
	rm -rf .kubernetes && mkdir .kubernetes
	set -e; for overlay in deploy/kubernetes/overlays/*/; do \
	  kubectl kustomize "$$overlay" > ".kubernetes/$$(basename "$$overlay").yaml"; \
	done
	$(CHECKOV)/bin/checkov --directory .kubernetes --framework kubernetes --skip-download --compact --quiet > .kubernetes/findings \
	  || { cat .kubernetes/findings; exit 1; }
	@grep 'Passed checks: [1-9][0-9]*, Failed checks: 0,' .kubernetes/findings

format: $(VENV)/installed-lint  ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: $(VENV)/installed-lint  ## look for known vulnerabilities in what is installed
	$(BIN)/python .ci/audit.py

fuzz: $(VENV)/installed-fuzz  ## feed damaged files to every reader, SECONDS=60 each
	$(BIN)/python tests/drivers/fuzz.py --seconds $(SECONDS)

clean:  ## remove the environment, the artifacts and the database
	rm -rf $(VENV) $(CHECKOV) .kubernetes artifacts spamscore.db* *.egg-info build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache \
	  .fuzz docs/_build docs/reference/_generated

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.py
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

$(VENV)/installed-fuzz: $(VENV)/installed-test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,fuzz]'
	touch $@

$(VENV)/installed-images: $(VENV)/installed-test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,images]'
	touch $@

$(VENV)/installed-lint: $(VENV)/installed-test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

$(CHECKOV)/installed:
	$(PYTHON) -m venv $(CHECKOV)
	$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check 'checkov>=3.3,<4'
	touch $@
