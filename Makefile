# Casemate's commands. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED := 0
export GOFLAGS := -trimpath

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
BIN     := bin/casemate
TOOLS   := bin/tools
PKGS    := ./...
# Modules of their own: what connectors are made with, and the two that come along.
MODULES := connector connectors/redis connectors/sqs

## run: build, start a node, call every example and show every source of events (ONESHOT=1: then stop)
.PHONY: run
run: build
	@go build -o bin/showcase ./test/showcase
	@exec bin/showcase -casemate $(BIN) $(if $(filter 1,$(ONESHOT)),-oneshot)

## build: build bin/casemate, and the JavaScript engine in it when its sources changed
.PHONY: build
build: engine box connectors
	@mkdir -p bin
	@echo "building $(BIN) $(VERSION)"
	@go build -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/casemate

## engine: build the JavaScript engine that bin/casemate carries, with clang and wasi-libc
.PHONY: engine
engine:
	@go run ./engine/js/build $(if $(CASEMATE_REQUIRE_TOOLCHAINS),,-optional)

## box: build the small program that bin/casemate carries to start native functions with
.PHONY: box
box:
	@go run ./cmd/casemate-box/build

## connectors: build the programs that bring events from Redis and SQS, beside bin/casemate
.PHONY: connectors
connectors:
	@mkdir -p bin
	@for name in redis sqs; do \
	  (cd connectors/$$name && go build -ldflags '$(LDFLAGS)' -o ../../bin/casemate-connector-$$name .); \
	done

## check: format, lint, architecture and short tests under the race detector
.PHONY: check
check: tools engine box
	@$(TOOLS)/golangci-lint fmt --diff
	@$(TOOLS)/golangci-lint run
	@$(LINT_MODULES)
	@go test -count=1 ./test/architecture
	@CGO_ENABLED=1 go test -race -short $(PKGS)
	@for m in $(MODULES); do (cd $$m && CGO_ENABLED=1 go test -race -short ./...); done

LINT_MODULES = for m in $(MODULES); do (cd $$m && $(CURDIR)/$(TOOLS)/golangci-lint run -c $(CURDIR)/.golangci.yml); done

# What these spend their time on is an interpreter or compiler of WebAssembly that serves one
# test by itself, three to ten times as slow under the race detector, which finds no more
# there than in what they use, whose own tests it sees. They are run as what ships is built.
# TWICE also has tests with goroutines: the race detector sees all of it but SINGLY, its
# tests of many calls one after the other.
TWICE   := ./internal/sandbox/wasm
UNRACED := ./engine/js/... ./internal/sandbox/wasm/goseed ./internal/sandbox/wasm/rewrite ./internal/sandbox/wasm/wasi ./test/guests $(TWICE)
SINGLY  := ^(TestStateComesBack|TestStateComesBackInGo|TestEachInvocationIsFresh)$$
# Lint has vetted them already. Many tests wait for timers, disks and servers: one package
# more than there are cores keeps these busy.
GOTESTSUM = CASEMATE_BIN=$(CURDIR)/$(BIN) $(TOOLS)/gotestsum --format pkgname --format-hide-empty-pkg --

## test: everything there is to test, in under 15 minutes on two cores
.PHONY: test
test: tools build
	@$(TOOLS)/golangci-lint run
	@$(LINT_MODULES)
	@$(GOTESTSUM) -vet=off -timeout 14m $(UNRACED)
	@CGO_ENABLED=1 $(GOTESTSUM) -race -vet=off -timeout 14m -p $$(($$(getconf _NPROCESSORS_ONLN) + 1)) -skip '$(SINGLY)' $$(go list $(PKGS) | grep -vxF "$$(go list $(filter-out $(TWICE),$(UNRACED)))")
	@for m in $(MODULES); do (cd $$m && CGO_ENABLED=1 go test -race -vet=off ./...); done

## e2e: the end-to-end tests against the built binary
.PHONY: e2e
e2e: build
	@CASEMATE_BIN=$(CURDIR)/$(BIN) go test -count=1 -timeout 10m ./test/e2e/...

## fault: kill the node at random moments and look for losses and leaks; KILLS=n (200), INVOCATIONS=n (10000)
KILLS ?= 200
INVOCATIONS ?= 10000
.PHONY: fault
fault: build
	@CASEMATE_BIN=$(CURDIR)/$(BIN) CASEMATE_KILLS=$(KILLS) CASEMATE_INVOCATIONS=$(INVOCATIONS) go test -count=1 -timeout 90m -v ./test/fault/...
	@CASEMATE_BOXES=$(INVOCATIONS) go test -count=1 -timeout 60m -v -run '^TestNothingLeaks$$' ./internal/sandbox/box

## fuzz: every fuzz target for FUZZTIME each (30s)
FUZZTIME ?= 30s
.PHONY: fuzz
fuzz:
	@for pkg in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; \
	    test/fuzz-one $$pkg $$target $(FUZZTIME); \
	  done; \
	done

## bench: compare with peers side by side and write BENCHMARKS.md; ONLY=id,id for some
.PHONY: bench
bench: build
	@cd bench && go run . -casemate ../$(BIN) $(if $(ONLY),-only $(ONLY))

## generate: rewrite what is derived: docs, schemas, deps.txt
.PHONY: generate
generate:
	@go run ./docs/generate
	@go test -count=1 -run TestForeignModulesChangeOnPurpose ./test/architecture -update

## vuln: known vulnerabilities in what we link, from the database at VULNDB (https://vuln.go.dev)
VULNDB ?= https://vuln.go.dev
.PHONY: vuln
vuln: tools
	@$(TOOLS)/govulncheck -db $(VULNDB) ./...

## tools: build the pinned tools
.PHONY: tools
tools: $(TOOLS)/.built
$(TOOLS)/.built: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	@echo "building tools (some minutes, once)"
	@cd tools && go build -o ../$(TOOLS)/ tool
	@touch $@

## clean: remove what was built
.PHONY: clean
clean:
	@rm -rf bin dist .run .cache

## help: this list
.PHONY: help
help:
	@sed -n 's/^## \([a-z0-9]*\): \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12
