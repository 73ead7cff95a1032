# The two commands of the README are the first two targets. One build profile serves all of them.

# Reference data beside the checkout; the tests that need it run when it is there.
SHARED := $(or $(HALLMARK_SHARED),../shared)
export HALLMARK_SHARED := $(abspath $(SHARED))
IGNORED := $(if $(wildcard $(SHARED)/data),--include-ignored)

PYTHON ?= python3

.PHONY: demo test lint bench

demo:
	cargo run --release -- demo

test:
	cargo test --release --workspace -- $(IGNORED)

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

# Needs a Python with the peers in it: see benches/README.md.
bench:
	$(PYTHON) benches/compare.py
