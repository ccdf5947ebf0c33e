# The commands of the project. `make help` lists them.
SHELL := /bin/sh
.DELETE_ON_ERROR:

TARGET  := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
DIST    := target/dist/crier
# Functions of the same instructions stand in it once, which spares half a megabyte. LLD can do that, with which Rust links from 1.90 on.
FOLDED  := $(shell rustc -vV 2>/dev/null | awk -F '[ .]' '/^host: x86_64-unknown-linux-gnu$$/ { host = 1 } \
             /^release:/ { new = $$2 > 1 || $$3 > 89 } END { if (host && new) print "-C link-arg=-Wl,--icf=all" }')
# Static, and its half a megabyte of relative relocations packed (DT_RELR, glibc 2.36); an older linker warns and goes on. Without
# the megabyte of tables, and their index, by which a process unwinds itself: it aborts instead, and a panic names its place.
STATIC  := -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs -C link-arg=-Wl,--no-eh-frame-hdr \
           -C link-arg=-Wl,-T,scripts/no-unwind-tables.ld $(FOLDED)
# The control plane for the rack: built once, kept outside the work tree.
VERSION := $(shell sed -n 's/^[[:space:]]*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' tests/kubernetes/go.mod | head -n 1)
CACHE   ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/crier
export KUBERNETES_FOLDER := $(CACHE)/kubernetes/$(VERSION)
# What people move from, in the rack too.
METALLB := $(CACHE)/metallb/$(shell sed -n 's/^[[:space:]]*go.universe.tf\/metallb \(v[0-9.]*\).*/\1/p' tests/kubernetes/metallb/go.mod | head -n 1)
# A controller of Ingresses and Gateways.
TRAEFIK := $(CACHE)/traefik/$(shell sed -n 's/^[[:space:]]*github.com\/traefik\/traefik\/v3 \(v[0-9.]*\).*/\1/p' tests/kubernetes/traefik/go.mod | head -n 1)

.PHONY: help
help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | column -t -s : 2>/dev/null || sed -n 's/^\([a-z-]*\):.*## /\1  /p' $(MAKEFILE_LIST)

.PHONY: build
build: ## Builds the one static binary, target/dist/crier
	@scripts/install-missing build
	RUSTFLAGS="$(STATIC)" cargo build --quiet --profile dist --bin crier --target $(TARGET) --target-dir target/static
	@mkdir -p target/dist
	@cp target/static/$(TARGET)/dist/crier $(DIST).new && mv $(DIST).new $(DIST)
	@scripts/check-binary $(DIST)

.PHONY: demo
demo: ## Tells the main job in a rack of network namespaces, in under two minutes after the build
	@scripts/install-missing build rack
	@$(MAKE) --no-print-directory build
	cargo build --quiet --package crier-rack --bin crier-rack
	@target/debug/crier-rack demo

.PHONY: kubernetes
kubernetes: ## Builds the control plane, MetalLB and Traefik for the tests once, into a cache folder of yours
	@scripts/install-missing kubernetes
	@if [ -n "$$KUBEBUILDER_ASSETS" ]; then echo "using the control plane in KUBEBUILDER_ASSETS"; \
	elif command -v go >/dev/null; then tests/kubernetes/build.sh "$(KUBERNETES_FOLDER)"; \
	else echo "no Go on this machine: the tests against a real Kubernetes will be skipped"; fi
	@! command -v go >/dev/null || tests/kubernetes/metallb/build.sh "$(METALLB)" || \
	echo "MetalLB could not be built: the tests beside it will be skipped"
	@! command -v go >/dev/null || tests/kubernetes/traefik/build.sh "$(TRAEFIK)" || \
	echo "Traefik could not be built: the tests of Ingresses and Gateways will be skipped"

.PHONY: lint
lint: ## Format and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings

.PHONY: test
test: ## All tests: unit, and the rack with real routers and a real Kubernetes
	@scripts/install-missing build rack
	@scripts/run-tests

.PHONY: test-unit
test-unit: ## Only what needs neither root nor routers
	cargo test --package crier

.PHONY: test-systemd
test-systemd: ## The unit file under a real systemd, in a container root made by debootstrap
	@scripts/install-missing build rack systemd
	@$(MAKE) --no-print-directory build
	tests/systemd/run

RESTARTS ?= 50
.PHONY: test-restarts
test-restarts: ## The same with fifty restarts in a row that no router, no node and no client may notice: make test-restarts RESTARTS=50
	CRIER_SYSTEMD_RESTARTS="$(RESTARTS)" $(MAKE) --no-print-directory test-systemd

.PHONY: test-kernels
test-kernels: ## The links, VRFs, egress and TCP-AO that this kernel may lack, under Debian's kernels in a virtual machine; hours without KVM
	@scripts/install-missing build rack kernels
	@$(MAKE) --no-print-directory build
	tests/kernels/run

LEAK_SECONDS ?= 300
.PHONY: test-leaks
test-leaks: ## Five minutes of what comes, goes, dies and is flushed at random, in which no packet of a pod may leave with a wrong address
	@scripts/install-missing build rack
	@$(MAKE) --no-print-directory build
	CRIER_LEAK_SECONDS="$(LEAK_SECONDS)" CRIER_RACK_STRICT=1 cargo test --package crier-rack --test egress_leaks -- whatever_comes --nocapture

TOWN_SEEDS ?= 10000
TOWN_FIRST ?= 0
.PHONY: town
town: ## Thousands of simulated towns, each with trouble of its own: make town TOWN_SEEDS=10000 TOWN_FIRST=0
	CRIER_TOWN_SEEDS="$(TOWN_SEEDS)" CRIER_TOWN_FIRST="$(TOWN_FIRST)" \
		cargo test --release --package crier --test town seeds::the_long_run -- --ignored --nocapture

FUZZ_TARGET  ?= update
FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: ## One decoder with libFuzzer and the address sanitizer: make fuzz FUZZ_TARGET=update FUZZ_SECONDS=600
	CRIER_FUZZ_CORPUS="$(CURDIR)/target/fuzz-corpus" cargo test --quiet --package crier --test wire_never_panics
	cargo +nightly fuzz run --target-dir target/fuzz "$(FUZZ_TARGET)" "target/fuzz-corpus/$(FUZZ_TARGET)" -- -max_total_time="$(FUZZ_SECONDS)"

.PHONY: bench
bench: ## Latency, scale and memory against a real API server, as figures of one run
	@scripts/install-missing build rack
	@$(MAKE) --no-print-directory kubernetes
	@$(MAKE) --no-print-directory build
	cargo run --quiet --release --package crier-rack --bin crier-rack -- bench

.PHONY: bench-dump
bench-dump: ## Announcing large tables beside BIRD, FRR, OpenBGPD and GoBGP, as ratios of one run
	@scripts/install-missing build rack
	@# Linked statically, as crier is shipped, because its memory is compared.
	cargo rustc --quiet --release --package crier-rack --bin crier-rack -- -C target-feature=+crt-static
	@target/release/crier-rack bench dump

.PHONY: bench-services
bench-services: ## What 10,000 Services take: time to all announced, requests to the API server, octets to the disk; ten minutes
	@$(MAKE) --no-print-directory build
	cargo build --quiet --package crier-rack --bin crier-rack
	@target/debug/crier-rack bench services

.PHONY: bench-failover
bench-failover: ## How long an address is away when its owner fails, beside keepalived
	@scripts/install-missing build rack
	@$(MAKE) --no-print-directory build
	cargo run --quiet --release --package crier-rack --bin crier-rack -- bench failover

.PHONY: bench-egress
bench-egress: ## How long outbound connections of pods do not get out when the owner of its egress address fails
	@scripts/install-missing build rack
	@$(MAKE) --no-print-directory build
	cargo run --quiet --release --package crier-rack --bin crier-rack -- bench egress

.PHONY: bench-bfd
bench-bfd: ## How long crier and BIRD take to notice a dead path by BFD
	@scripts/install-missing build rack
	@$(MAKE) --no-print-directory build
	cargo run --quiet --release --package crier-rack --bin crier-rack -- bench bfd

.PHONY: bench-bfd-load
bench-bfd-load: ## How many sessions of BFD crier and BIRD lose in ten minutes while every core is busy
	@scripts/install-missing build rack
	@$(MAKE) --no-print-directory build
	cargo run --quiet --release --package crier-rack --bin crier-rack -- bench bfd load

.PHONY: install
install: ## Installs the binary, the unit and the example configuration below DESTDIR
	install -D -m 0755 $(DIST) $(DESTDIR)/usr/bin/crier
	install -D -m 0644 systemd/crier.service $(DESTDIR)/usr/lib/systemd/system/crier.service
	install -D -m 0644 README.md $(DESTDIR)/usr/share/doc/crier/README.md
	install -D -m 0644 -t $(DESTDIR)/usr/share/doc/crier/doc doc/*.md
	install -D -m 0644 config/crier.toml $(DESTDIR)/usr/share/doc/crier/crier.toml
	install -D -m 0644 config/rbac.yaml $(DESTDIR)/usr/share/doc/crier/rbac.yaml
