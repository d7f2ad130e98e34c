# The targets of this repository; make lists them. A fresh machine needs git, make and Go. As root
# on Debian or Ubuntu, targets install other missing packages; otherwise they name them.

GO          ?= go
RACE        ?= -race
TESTFLAGS   ?=
COVER       ?=
PACKAGES    ?=
MINIMUM     ?= 85
FUZZTIME    ?= 5s
SOAK        ?= 10m
TWIN        ?= 10m
TWIN_SCRIPT ?=
DEMOFLAGS   ?=
BENCHDIR    ?= bench/results
BENCHFLAGS  ?=
MININETFLAGS ?=
FLOWFLAGS   ?=
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The packages whose coverage is measured; those whose tests count for it, the longest first; and
# all others, which are tested too.
MEASURED := ./engine/... ./splice/... ./intercept/... ./tproxy/... ./internal/sock
COUNTED  := ./engine ./internal/e2e/... $(MEASURED)
REST     := $$($(GO) list ./... | grep -vxF "$$($(GO) list $(COUNTED))")

# PARALLEL packages at a time. Vetting is lint's. Without GORACE, every process that tests start
# sleeps for a second before it exits, if it has the race detector.
PARALLEL := 2
GOTEST = GORACE=atexit_sleep_ms=0 $(GO) test $(RACE) -p $(PARALLEL) -vet=off -timeout 30m -count=1 $(TESTFLAGS)
# With COVER=FILE, what the counted tests run through goes to FILE. Processes that
# they start may be another user's, and write theirs where everybody can.
COUNT  = $(if $(COVER),dir=$$(mktemp -d) && chmod 1777 $$dir && trap "rm -rf $$dir" EXIT && )$(GOTEST) $(PROFILE) $(COUNTED)
PROFILE = $(if $(COVER),-covermode=atomic -coverpkg=$(subst $(space),$(comma),$(strip $(MEASURED))) -coverprofile=$(COVER) -exec "env GOCOVERDIR=$$dir")

comma := ,
space := $(subst ,, )

# Without a home directory the tools have no place for their caches.
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export GOPATH  ?= $(CURDIR)/.cache/go
export GOCACHE ?= $(CURDIR)/.cache/go-build
export GOFLAGS += -modcacherw
export STATICCHECK_CACHE ?= $(CURDIR)/.cache/staticcheck
endif

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: ## measure a slow link with and without flow control; under a minute, no root needed
	@.ci/setup demo
	@echo "building bin/tprelay and bin/tpbench (the first time takes a minute)"
	@$(GO) build -o bin/ ./cmd/tprelay ./cmd/tpbench
	@bin/tpbench demo $(DEMOFLAGS) </dev/null

demo-picture: ## draw the output of make demo for the README (docs/plots/demo.svg)
	@.ci/setup demo
	@$(GO) build -o bin/ ./cmd/tprelay ./cmd/tpbench
	@bin/tpbench demo $(DEMOFLAGS) </dev/null >bin/demo.txt
	@$(GO) run ./docs/terminal 'make demo' <bin/demo.txt >docs/plots/demo.svg

test: ## run all tests with the race detector; PACKAGES=./engine selects packages
	@.ci/setup test
ifneq ($(strip $(PACKAGES)),)
	@$(GOTEST) $(PACKAGES)
else
	@log=$$(mktemp) && trap 'rm -f "$$log"' EXIT && status=0; \
	$(MAKE) --no-print-directory -k -j 2 test-counted test-rest REST_LOG="$$log" || status=1; \
	cat "$$log"; exit $$status
endif

# Both at the same time, as tests wait more than they work: three packages, the two longest among
# them. The second one's output comes when both have ended: lines of packages must not mix.
test-counted:
	@$(COUNT)
test-rest: PARALLEL := 1
test-rest:
	@$(GOTEST) $(REST) >$(REST_LOG) 2>&1

# TESTS of PACKAGE, as "TestA|TestB", without the race detector, for .ci/run.
again: RACE :=
again:
	@$(GOTEST) -v -run '^($(TESTS))$$' $(PACKAGE)

lint: ## run gofmt, go vet for amd64 and arm64, staticcheck
	@.ci/setup go
	@files=$$($(GO) list -f '{{.Dir}}' ./... | xargs gofmt -l | sort -u); \
	test -z "$$files" || { echo "not gofmt-ed:"; echo "$$files"; exit 1; }
	GOARCH=amd64 $(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# Static programs, which need no C library on the gateway.
build demo: export CGO_ENABLED := 0
build: ## build bin/tprelay and bin/tpbench
	@.ci/setup go
	$(GO) build -o bin/ ./cmd/tprelay ./cmd/tpbench

cover: COVER := cover.out
cover: RACE :=
cover: ## measure test coverage of the engine; fails below MINIMUM percent
	@.ci/setup test
	@$(COUNT)
	@.ci/coverage $(COVER) $(MINIMUM)

fuzz: ## run each fuzz test for FUZZTIME (5s)
	@.ci/setup go
	@$(GO) list ./... | while read -r p; do \
		for f in $$($(GO) test -list '^Fuzz' "$$p" | grep '^Fuzz'); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$p" </dev/null || exit 1; \
		done; done

# Without the race detector in the test; with RACE=-race, in the relay.
soak: RACE :=
soak: ## run random streams and faults for SOAK (10m); RACE=-race: with a race detector in the relay
	@.ci/setup test
	@TPRELAY_SOAK=$(SOAK) TPRELAY_SOAK_RACE=$(RACE) $(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' $(TESTFLAGS) ./internal/soak

# Without the race detector in the test; with RACE=-race, in the relay.
twin: RACE :=
twin: ## compare the relay with a router by random scripts for TWIN (10m), or by one TWIN_SCRIPT
	@.ci/setup test
	@TPRELAY_TWIN=$(TWIN) TPRELAY_TWIN_RACE=$(RACE) TPRELAY_TWIN_SCRIPT='$(TWIN_SCRIPT)' \
		$(GO) test -count=1 -timeout 0 -v -run '^TestTwin$$' $(TESTFLAGS) ./internal/twin

# Nothing else should run on the machine meanwhile.
bench: BENCH := --seconds 1 --warmup 300ms --again 2m
bench: compare ## compare relays with every workload; about half an hour; makes a page with plots

bench-quick: BENCH := --quick
bench-quick: compare ## the same with the most important relays and workloads; some minutes

bench-check: BENCH := --check --warmup 300ms
bench-check: BENCHDIR := bench/results/check
bench-check: compare ## check the project's own targets; up to half an hour; fails where one is missed

compare: build
	@.ci/setup bench
	@.ci/with-cubic bin/tpbench compare $(BENCH) --out $(BENCHDIR) $(BENCHFLAGS) </dev/null
	@echo; echo "raw figures, tables and a page with plots:"; bin/tpbench report $(BENCHDIR)

# On this machine, and where its kernel lacks netem or Open vSwitch, also on one that has both.
mininet: mininet-host ## measure the bottleneck in Mininet, as root; eight minutes, more in a VM if the kernel lacks netem
	@/usr/bin/python3 -B -c 'import sys; sys.path.insert(0, "mininet"); import topo; sys.exit(not (topo.has_netem() and topo.has_openvswitch()))' \
	|| { echo; $(MAKE) --no-print-directory mininet-vm; }

mininet-host: build ## the same on this machine only
	@.ci/setup mininet
	@mininet/topo.py $(MININETFLAGS) </dev/null

mininet-vm: build ## the same in a VM with a stock Debian kernel
	@.ci/setup mininet
	@VM_TIMEOUT=$${VM_TIMEOUT:-1800} mininet/vm.sh mininet/topo.py $(MININETFLAGS) </dev/null

mininet-test: ## run its unit tests, and pylint if it is installed; no root needed
	@.ci/setup mininet
	@cd mininet && /usr/bin/python3 -B -m unittest
	@if command -v pylint >/dev/null; then cd mininet && pylint -s n *.py; else echo "pylint is not installed: left out"; fi

flow-plots: build ## measure and draw the plots of docs/flow-control.md, as root; six minutes
	@.ci/setup flow
	@mininet/topo.py --document $(FLOWFLAGS) </dev/null

setup: ## install what demo, bench, test and lint need (as root)
	@.ci/setup demo bench test

clean: ## remove what was built
	rm -rf bin cover.out .cache

.PHONY: help demo demo-picture test test-counted test-rest again lint build cover fuzz soak twin bench bench-quick bench-check compare mininet mininet-host mininet-vm mininet-test flow-plots setup clean
