# Everything lives in .venv, made on first use.  A machine needs Python 3.10 or later, make and git.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest
# In the order of testpaths, the long files first: xdist itself would put files with few tests last, which are long.
BOTH_CORES := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Runs what follows with a loopback of its own, where we may: Ray insists on the address of the host.
ALONE = $(shell unshare -rn true 2>/dev/null && echo unshare -rn sh -c \''ip link set lo up && exec "$$0" "$$@"'\')
# Installs a Debian package where we may: $(call debian,NAME)
debian = { command -v apt-get && $(if $(filter 0,$(shell id -u)),,sudo -n) \
	sh -c 'apt-get update && apt-get install -y --no-install-recommends $(1)'; } >/dev/null 2>&1

# Some images of Python set it: each process would then rewrite the tests' asserts, and compile our files, anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu check types quick random zoo repeats fuzz faults servers bench golden docs clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 17

setup: $(READY) ## make the environment alone

demo: $(READY) ## cut GPT-2 in two, run both stages, compare with the uncut model
	$(BIN)/stagecut compile examples/gpt2.py --stages 2 -o build/gpt2 --verify
	$(BIN)/python examples/check.py examples/gpt2.py build/gpt2

test: $(READY) ## run every test
	$(PYTEST) $(BOTH_CORES)

test-gpu: $(READY) ## run every test on a machine with GPUs
	@$(BIN)/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { \
		echo "torch finds no GPU here; make test runs what needs none"; exit 1; }
	$(PYTEST) $(BOTH_CORES)

check: $(READY) ## lint, types and the quick tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(MAKE) --no-print-directory --jobs 2 types quick  # pyright has one thread

types: $(READY)
	$(BIN)/pyright

quick: $(READY)
	$(PYTEST) $(BOTH_CORES) -m "not slow" tests/pure

random: $(READY) ## run the tests that draw examples 10 times (ROUNDS), each time with others
	for round in $$(seq $(or $(ROUNDS),10)); do PYTHONHASHSEED=random $(PYTEST) $(BOTH_CORES) -m hypothesis --hypothesis-profile random || exit; done

zoo: $(READY) ## cut 272 architectures, compare each with its uncut self, write docs/coverage.md
	$(BIN)/python -m tests.zoo

repeats: $(READY) ## export the zoo with layers once a kind, compare with full exports
	$(BIN)/python -m tests.zoo.repeats

fuzz: $(READY) ## cut 5,000 random modules, compare each with its uncut self
	$(BIN)/python -m tests.fuzz

faults: $(READY) ## put 1,000 faults into an artifact, which `stagecut check` must find
	$(BIN)/python -m tests.faults

servers: build/servers/.ready ## run packages on the real TorchServe (needs Java 17), Triton and Ray Serve, and fuzz our own
	$(ALONE) $(PYTEST) tests/servers/test_servers.py tests/servers/test_server_texts.py tests/servers/test_ray_hosts.py tests/servers/test_openapi.py tests/servers/test_kserve.py
	$(PYTEST) tests/servers/test_hosts.py

bench: $(READY) ## run the benchmarks
	$(PYTEST) tests/benchmarks -s

golden: $(READY) ## rewrite the golden files; read the difference before you commit it
	$(PYTEST) --rewrite-golden

docs: $(READY) ## write the reference as HTML to build/docs
	$(BIN)/python docs/build.py build/docs

# Each server in an environment of its own, which finds behind its own libraries ours and this folder.  Triton's server is
# in the wheel of pytriton, whose own requirements do not fit ours; it is older than NumPy 2.
build/servers/.ready: $(READY)
	rm -rf build/servers
	for server in torchserve triton ray schemathesis kserve; do \
		$(BIN)/python -m venv build/servers/$$server; \
		site=$$(cd build/servers/$$server/lib/python*/site-packages && pwd); \
		(pwd; ls -d $$PWD/.venv/lib/python*/site-packages) > $$site/behind.pth; done
	build/servers/torchserve/bin/pip install --quiet torchserve torch-model-archiver
	build/servers/ray/bin/pip install --quiet 'ray[serve]'
	build/servers/schemathesis/bin/pip install --quiet schemathesis
	build/servers/kserve/bin/pip install --quiet kserve
	build/servers/triton/bin/pip install --quiet 'numpy<2' 2>/dev/null
	$(BIN)/pip download --quiet --no-deps --dest build/servers nvidia-pytriton
	$(BIN)/python -m zipfile -e build/servers/nvidia_pytriton-*.whl build/servers/triton/wheel
	cd build/servers/triton/wheel/pytriton/tritonserver && chmod +x bin/tritonserver && \
		install python_backend_stubs/$$($(CURDIR)/$(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/* backends/python
	@touch $@

clean: ## remove the environment and all that was built
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "stagecut needs Python 3.10 or later, which $(PYTHON) is not; try: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call debian,python3-venv) || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@command -v dot >/dev/null || { echo "Installing graphviz, which draws graph.svg"; $(call debian,graphviz); } || \
		echo "The program dot is missing, so no graph.svg will be drawn; to get it: apt-get install graphviz"
	@command -v chromium >/dev/null || { echo "Installing chromium, which the report is tested in"; $(call debian,chromium chromium-driver); } || \
		echo "Without chromium and chromium-driver the tests of the report are skipped"
	@echo "Installing into .venv; torch is large, so the first time takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet 'pip>=23'
	$(BIN)/python -m pip install --quiet --editable '.[compile,test,zoo,bench]' --constraint constraints.txt
	@touch $@
