# What CI runs, and what a developer runs. Everything installs what it needs under .tools/.
.DEFAULT_GOAL := test
.PHONY: test tools fmt lint unit doc containers advisories parity bench-engine bench-own bench-colony bench-probes bench-student bench-faults cuda-check demo clean-tools

CARGO ?= cargo
# With these set, a test whose server or engine is missing fails instead of being skipped.
export USPX_REQUIRE_NATS := 1
export USPX_REQUIRE_S3 := 1
export USPX_REQUIRE_LLAMA_CPP := 1
export USPX_REQUIRE_PYTHON := 1

test: tools fmt lint unit doc containers advisories ## everything that CI runs

tools: ## nats-server and the independent readers
	deploy/get-nats-server.sh
	tests/tools/venv.sh
	tests/tools/nextest.sh

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Two tests run side by side, each on a thread: two numeric threads on a busy core are many times slower.
unit:
	$(CARGO) build --locked --workspace --bins
	RAYON_NUM_THREADS=1 $(CARGO) nextest run --locked --workspace

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

containers: ## docker-compose.yml on a container engine; skipped by name where there is none
	tests/tools/containers.sh

advisories: ## known vulnerabilities among the dependencies; skipped by name where it cannot run
	tests/tools/advisories.sh

cuda-check: ## type-checks the cuda feature, on a machine without CUDA too
	tests/tools/cuda-check.sh

parity: ## heavy comparisons with PyTorch and gptqmodel, in a venv of their own
	tests/parity/run.sh

bench-engine: ## the engine's speed, memory and agreement (15 GB of disk, an hour); the last line is JSON
	$(CARGO) build --locked --release --bins
	tests/tools/venv.sh
	tests/parity/venv.sh
	$(CARGO) run --locked --release --package uspx-bench-engine -- run $(BENCH)

bench-own: ## a person's own loop (BENCH="--models DIR --prompts FILE"), and a teacher larger than memory (15 GB of disk); the last line is JSON
	$(CARGO) build --locked --release --workspace --bins
	deploy/get-nats-server.sh
	$(or $(CARGO_TARGET_DIR),target)/release/uspx-bench-own $(BENCH)

bench-colony: ## the mask that the colony finds for what it spends, beside other ways to spend it (BENCH="--model DIR --keep 0.5,0.75"); the last line is JSON
	$(CARGO) build --locked --release --workspace --bins
	$(or $(CARGO_TARGET_DIR),target)/release/uspx-bench-colony $(BENCH)

bench-probes: ## which masks cost least on prompts that they were not made from (BENCH="--model DIR --other-fit FILE --other-heldout FILE"); the last line is JSON
	$(CARGO) build --locked --release --workspace --bins
	tests/tools/venv.sh
	tests/parity/venv.sh
	$(or $(CARGO_TARGET_DIR),target)/release/uspx-bench-probes $(BENCH)

bench-student: ## what every way to teach a student is worth as a 4-bit file, shared and 8B trainings, training beside PyTorch (BENCH="--teacher DIR --student DIR"); the last line is JSON
	$(CARGO) build --locked --release --workspace --bins
	tests/parity/venv.sh
	$(or $(CARGO_TARGET_DIR),target)/release/uspx-bench-student $(BENCH)

bench-faults: ## every kind of fault, and 200 random schedules of them; the last line is JSON
	$(CARGO) build --locked --workspace --bins
	$(CARGO) run --locked --package uspx-bench-faults

demo:
	$(CARGO) run --locked --release -- demo

clean-tools:
	rm -rf .tools
