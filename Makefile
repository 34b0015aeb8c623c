# The only commands a person needs. Every one of them starts from a bare Debian 12 machine.
#
#   make run     a shell in a virtual machine (with no terminal: a transcript, exit status 0)
#   make build   build/release/tenon
#   make test    everything built and tested
#   make bench   side-by-side measurements against QEMU
#   make fuzz    every fuzzer for FUZZ_SECONDS each under sanitizers, then a table
#   make format  clang-format over the sources
#   make clean   removes build/
.PHONY: run build test bench fuzz format clean
.DEFAULT_GOAL := build

JOBS := $(shell nproc)
FUZZ_SECONDS ?= 60

# Looked up when a recipe runs: tools/setup may have installed it just before.
export CMAKE_CXX_COMPILER_LAUNCHER = $(shell command -v ccache)
export CCACHE_BASEDIR = $(CURDIR)

run: build
	@build/release/tenon run

build:
	@tools/setup
	@cmake/configure release
	@echo "build: build/release/tenon with $(JOBS) jobs"
	@cmake --build --preset release --target tenon -j $(JOBS)

test:
	@tools/setup
	@cmake/configure release
	@echo "test: building everything with $(JOBS) jobs"
	@cmake --build --preset release -j $(JOBS)
	@echo "test: running"
	@ctest --test-dir build/release --output-on-failure -j $(JOBS)

bench:
	@tools/setup --bench
	@cmake/configure release
	@echo "bench: building with $(JOBS) jobs"
	@cmake --build --preset release --target tenon engine_benchmark -j $(JOBS)
	@bench/run

fuzz:
	@tools/setup --fuzz
	@cmake/configure fuzz
	@echo "fuzz: building the fuzzers with $(JOBS) jobs"
	@cmake --build --preset fuzz --target fuzzers -j $(JOBS)
	@tools/fuzz build/fuzz $(FUZZ_SECONDS)

format:
	@tools/setup
	@tools/check format --fix

clean:
	@rm -rf build
	@echo "clean: build/ is gone"
