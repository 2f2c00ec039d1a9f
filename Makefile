# Copyright The gpu_exporter Authors
# SPDX-License-Identifier: Apache-2.0

# Tools are pinned and built from source into build/tools by the Go module proxy.
PROMETHEUS_VERSION ?= v0.316.0
GOLANGCI_VERSION   ?= v2.15.0
KUBERNETES_VERSION ?= v1.37.2

GO      ?= go
BUILD   := $(CURDIR)/build
TOOLS   := $(BUILD)/tools
SIM     := $(BUILD)/sim
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PKG     := github.com/prometheus/common/version
LDFLAGS := -X $(PKG).Version=$(VERSION) \
	-X $(PKG).Revision=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) \
	-X $(PKG).Branch=$(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)

# go-nvml's generated code calls functions that NVIDIA's header deprecates.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

# What `make run` simulates, and where it listens.
SCENARIO ?= h100x8
ADDRESS  ?= 127.0.0.1:9400
# How long each fuzz target runs with `make fuzz`.
FUZZTIME ?= 10s

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: exporter sim ## Build build/gpu_exporter and the stand-ins in build/sim

.PHONY: exporter
exporter:
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/gpu_exporter ./cmd/gpu_exporter

.PHONY: sim
sim:
	$(MAKE) -s --no-print-directory -C collector/dcgmsim OUT=$(SIM)

.PHONY: run
run: build ## Build everything and serve a simulated node (SCENARIO=h100x8 ADDRESS=127.0.0.1:9400)
	$(BUILD)/gpu_exporter --simulate=$(SCENARIO) --web.listen-address=$(ADDRESS)

.PHONY: test
test: build $(TOOLS)/prometheus $(TOOLS)/promtool ## Run all tests, with a real Prometheus
	$(GO) test -timeout 60m ./...

# The packages whose code starts goroutines; CI runs these with the race detector.
CONCURRENT = $(shell grep -rlE --include='*.go' '^\s*go [a-z]|\.Go\b|AfterFunc' cmd collector podmapper \
	| grep -v _test.go | xargs -n 1 dirname | sort -u | sed 's|^|./|')
RACE ?= ./...

.PHONY: test-race
test-race: build $(TOOLS)/prometheus $(TOOLS)/promtool ## Run all tests with the race detector (RACE='./...')
	$(GO) test -race -timeout 40m $(RACE)

.PHONY: test-ci
test-ci: build $(TOOLS)/prometheus $(TOOLS)/promtool ## Run all tests, those of concurrent packages with the race detector
	$(GO) test -timeout 20m $(filter-out $(CONCURRENT:./%=gpu_exporter/%),$(shell $(GO) list ./...))
	$(MAKE) --no-print-directory test-race RACE='$(CONCURRENT)'

.PHONY: test-faults
test-faults: build ## Run the fault suite, print latencies and recovery times (FAULT_TIMES=1 checks them)
	$(GO) test -v -run '^TestFault' -count 1 -timeout 20m \
		$$(grep -rl --include='*_test.go' '^func TestFault' cmd collector podmapper | xargs -n 1 dirname | sort -u | sed 's|^|./|')

BROWSER ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
BROWSER_TESTS := $(CURDIR)/cmd/gpu_exporter/internal/status/browser

.PHONY: test-browser
test-browser: build $(TOOLS)/browser/.installed ## Test the status page in Chromium; needs Node.js (BROWSER=path)
	@if [ -z "$(BROWSER)" ]; then echo "Chromium is missing: install it, or set BROWSER=path" >&2; exit 1; fi
	BROWSER='$(BROWSER)' NODE_PATH=$(TOOLS)/browser/node_modules $(GO) test -v -run '^TestBrowser$$' -count 1 -timeout 20m ./cmd/gpu_exporter $(PICTURES)

.PHONY: pictures
pictures: ## Rewrite the pictures of the status page
	$(MAKE) --no-print-directory test-browser PICTURES=-pictures

$(TOOLS)/browser/.installed: $(BROWSER_TESTS)/package.json
	@mkdir -p $(@D)
	cp $< $(@D)
	npm install --prefix $(@D) --no-audit --no-fund --no-package-lock
	@touch $@

.PHONY: soak
soak: build ## Reload every 5 s and cause a fault every 10 s; nothing may grow (DURATION=10m)
	$(GO) test -v -run '^TestSoak$$' -count 1 -timeout 24h ./cmd/gpu_exporter -soak $(DURATION)

.PHONY: promtool
promtool: $(TOOLS)/promtool ## Build promtool, which checks metrics and rules, in build/tools

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Check formatting, import directions and common mistakes
	$(TOOLS)/golangci-lint run ./...

# How long `make bench` observes the memory, and how long `make soak` runs.
DURATION ?= 10m

.PHONY: bench
bench: build ## Measure scrapes, samples, memory and start against floors of the same run (DURATION=10m)
	$(GO) run ./cmd/gpu_exporter/internal/bench -exporter $(BUILD)/gpu_exporter -duration $(DURATION)
	$(GO) test -run '^$$' -bench Sample ./collector/metrics
	$(GO) test -run '^$$' -bench Sample ./collector/dcgm

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s); report all failures at the end
	@failed=; for pkg in $$($(GO) list ./...); do \
		dir=$$($(GO) list -f '{{.Dir}}' $$pkg); \
		for target in $$(grep -hos '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | sed 's/^func //'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg \
				|| failed="$$failed $$pkg/$$target"; \
		done; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:"; printf '  %s\n' $$failed; exit 1; fi

.PHONY: golden
golden: build $(TOOLS)/promtool ## Rewrite the golden files after an intended change
	$(GO) test ./collector/field ./collector/metrics ./collector/nvml ./podmapper/docker ./podmapper/dra ./cmd/gpu_exporter/internal/status -update
	$(GO) test ./cmd/gpu_exporter -run 'Promtool|TestFamilyBudgets' -update

.PHONY: docs
docs: ## Rewrite the pages and counters files that are generated from the code
	$(GO) test ./collector/field ./collector/metrics ./collector/xid ./cmd/gpu_exporter/internal/config ./cmd/gpu_exporter/internal/status \
		-run 'Page$$|^TestEverythingCounters$$' -update

.PHONY: dashboards
dashboards: ## Rewrite the dashboards, and the tables of what needs a group, from the code
	$(GO) test ./grafana -run '^(TestFiles|TestReadmePage|TestDependents)$$' -count 1 -update

# Where the runbooks are served, and where rules with links to them are written.
RUNBOOKS ?=
RULES    ?= $(BUILD)/rules

.PHONY: rules
rules: ## Rewrite the recording rules and alerts, and their tables, from the code (RUNBOOKS=https://host/path RULES=build/rules)
ifeq ($(RUNBOOKS),)
	$(GO) test ./deploy/prometheus/rules -run '^(TestRuleFiles|TestTables|TestThresholds)$$' -update
else
	$(GO) test ./deploy/prometheus/rules -run '^TestRuleFiles$$' -count 1 -runbooks '$(RUNBOOKS)' -out '$(abspath $(RULES))'
	@echo "wrote $(abspath $(RULES))/recording.yaml and alerts.yaml"
endif

.PHONY: test-parsers
test-parsers: exporter sim ## Read pages with the parsers of OpenTelemetry, Alloy and VictoriaMetrics
	cd deploy/prometheus/parsers && $(GO) test ./... -exporter $(BUILD)/gpu_exporter

PINT_VERSION         ?= v0.87.0
# Later versions do not build from their modules, which have no web interface.
ALERTMANAGER_VERSION ?= v0.31.1

.PHONY: pint
pint: $(TOOLS)/pint ## Check the rules with pint, without a Prometheus
	cd deploy/prometheus && $(TOOLS)/pint --config .pint.hcl --offline lint --min-severity info --fail-on info recording.yaml alerts.yaml

.PHONY: amtool
amtool: $(TOOLS)/amtool ## Check the example configuration of Alertmanager
	$(TOOLS)/amtool check-config deploy/prometheus/examples/alertmanager.yaml

# `go install` asks for the list of pint's versions, which the module proxy does not have.
$(TOOLS)/pint: $(TOOLS)/.pint-$(PINT_VERSION)
$(TOOLS)/.pint-$(PINT_VERSION):
	@rm -rf $(TOOLS)/src/pint && mkdir -p $(TOOLS)/src/pint
	@printf 'module tool\n\ngo 1.26\n\nrequire github.com/cloudflare/pint $(PINT_VERSION)\n' >$(TOOLS)/src/pint/go.mod
	cd $(TOOLS)/src/pint && GOFLAGS=-mod=mod $(GO) build -o $(TOOLS)/pint github.com/cloudflare/pint/cmd/pint
	@touch $@

$(TOOLS)/amtool $(TOOLS)/alertmanager: $(TOOLS)/%: $(TOOLS)/.%-$(ALERTMANAGER_VERSION)
$(TOOLS)/.amtool-$(ALERTMANAGER_VERSION) $(TOOLS)/.alertmanager-$(ALERTMANAGER_VERSION): $(TOOLS)/.%-$(ALERTMANAGER_VERSION):
	@mkdir -p $(TOOLS)
	GOFLAGS= GOBIN=$(TOOLS) $(GO) install github.com/prometheus/alertmanager/cmd/$*@$(ALERTMANAGER_VERSION)
	@touch $@

# Flags of `make bench-fleet`, for example BENCH='-nodes 125' for 1,000 GPUs.
BENCH ?=

.PHONY: bench-fleet
bench-fleet: build $(TOOLS)/prometheus ## Measure rules, dashboards and Prometheus for 10,000 simulated GPUs (takes half an hour and 8 GB)
	cd deploy/prometheus/fleet && $(GO) run . -exporter $(BUILD)/gpu_exporter -prometheus $(TOOLS)/prometheus \
		-rules $(CURDIR)/deploy/prometheus -dashboards $(CURDIR)/grafana/dashboards $(BENCH)

COMPOSE_VERSION ?= v2.16.2
DEMO_TOOLS = $(TOOLS)/prometheus $(TOOLS)/promtool $(TOOLS)/alertmanager

.PHONY: demo
demo: build $(DEMO_TOOLS) ## Run a simulated node, Prometheus with the rules and Alertmanager, without containers (SCENARIO=h100x8)
	$(GO) build -o $(BUILD)/demo ./deploy/compose/demo
	@$(BUILD)/demo -scenario '$(SCENARIO)'

.PHONY: test-demo
test-demo: build $(DEMO_TOOLS) $(TOOLS)/compose ## Test the demo, and deploy/compose as far as no container is needed
	$(GO) test -v -count 1 ./deploy/compose/...

# The library that `docker compose config` uses.
$(TOOLS)/compose: $(TOOLS)/.compose-$(COMPOSE_VERSION)
$(TOOLS)/.compose-$(COMPOSE_VERSION):
	@mkdir -p $(TOOLS)/src/compose
	GOFLAGS= GOBIN=$(TOOLS)/src/compose $(GO) install github.com/compose-spec/compose-go/v2/cmd@$(COMPOSE_VERSION)
	mv $(TOOLS)/src/compose/cmd $(TOOLS)/compose
	@touch $@

# Binaries and stand-ins of a release depend on the sources, VERSION, REVISION and the compilers only.
ARCH     ?= $(shell $(GO) env GOARCH)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
OUT      ?= $(BUILD)/release-files/$(ARCH)
CC_amd64 ?= x86_64-linux-gnu-gcc
CC_arm64 ?= aarch64-linux-gnu-gcc

.PHONY: release-files
release-files:
	CGO_ENABLED=1 GOOS=linux GOARCH=$(ARCH) CC=$(CC_$(ARCH)) $(GO) build -trimpath -buildvcs=false \
		-ldflags '-s -w -buildid= -X $(PKG).Version=$(VERSION) -X $(PKG).Revision=$(REVISION)' -o $(OUT)/gpu_exporter ./cmd/gpu_exporter
	$(MAKE) -s --no-print-directory -C collector/dcgmsim OUT=$(OUT)/.sim CC=$(CC_$(ARCH)) CFLAGS='-O1 -s'
	mkdir -p $(OUT)/sim && cp $(OUT)/.sim/*.so* $(OUT)/.sim/dcgmsimd $(OUT)/sim/

# A tool with the command line of docker build: docker, podman or buildah, with arguments for it.
IMAGE_TOOL ?= docker
IMAGE_ARGS ?=
IMAGE      ?= localhost/gpu_exporter:$(VERSION)
# exporter, or sim with the stand-ins.
IMAGE_TARGET ?= exporter
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
CREATED = $(shell date -u -d @$(SOURCE_DATE_EPOCH) +%Y-%m-%dT%H:%M:%SZ)
# buildah and podman set the times of files with this argument, docker with SOURCE_DATE_EPOCH.
# The image store of docker keeps no annotations: README.md of deploy/image adds them to a push.
IMAGE_META = $(if $(findstring docker,$(IMAGE_TOOL)),--build-arg SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH),--timestamp $(SOURCE_DATE_EPOCH) \
	$(foreach a,title=gpu_exporter licenses=Apache-2.0 version=$(VERSION) revision=$(REVISION) created=$(CREATED),--annotation org.opencontainers.image.$(a)))

.PHONY: image
image: ## Build the image (ARCH=arm64 IMAGE=name:tag IMAGE_TARGET=sim IMAGE_TOOL=buildah IMAGE_ARGS='--build-arg DCGM=...')
	$(IMAGE_TOOL) build -f deploy/image/Containerfile -t $(IMAGE) --platform linux/$(ARCH) --target $(IMAGE_TARGET) $(IMAGE_META) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		--build-arg CREATED=$(CREATED) $(IMAGE_ARGS) .

RELEASE_TOOLS = $(TOOLS)/minisign $(TOOLS)/cyclonedx-gomod $(TOOLS)/govulncheck $(TOOLS)/nfpm $(TOOLS)/helm4 $(if $(IMAGES),$(TOOLS)/syft)

.PHONY: release
release: $(RELEASE_TOOLS) ## Write the files of a release to build/release (VERSION=0.1.0 SIGN_KEY=minisign.key IMAGES='a.tar b.tar')
	VERSION='$(VERSION)' REVISION='$(REVISION)' SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) TOOLS=$(TOOLS) OUT='$(RELEASE)' \
		ARCHS='$(RELEASE_ARCHS)' SIGN_KEY='$(SIGN_KEY)' IMAGES='$(IMAGES)' deploy/release/release.sh

RELEASE       ?= $(BUILD)/release
RELEASE_ARCHS ?= amd64 arm64

# Takes about 20 minutes on two cores.
.PHONY: test-release
test-release: $(RELEASE_TOOLS) ## Build a release twice in different directories, compare and check its files
	$(GO) test -v -count 1 -timeout 4h ./deploy/release -release

.PHONY: test-image
test-image: ## Build and run the image's variants with buildah, as root, without a registry
	$(GO) test -v -count 1 -timeout 4h ./deploy/image -image

MINISIGN_VERSION    ?= v0.3.0
CYCLONEDX_VERSION   ?= v1.10.0
GOVULNCHECK_VERSION ?= v1.9.0
SYFT_VERSION        ?= v1.57.0

$(TOOLS)/minisign: $(TOOLS)/.minisign-$(MINISIGN_VERSION)
$(TOOLS)/cyclonedx-gomod: $(TOOLS)/.cyclonedx-gomod-$(CYCLONEDX_VERSION)
$(TOOLS)/govulncheck: $(TOOLS)/.govulncheck-$(GOVULNCHECK_VERSION)
$(TOOLS)/syft: $(TOOLS)/.syft-$(SYFT_VERSION)
$(TOOLS)/.minisign-$(MINISIGN_VERSION): MODULE := aead.dev/minisign/cmd/minisign@$(MINISIGN_VERSION)
$(TOOLS)/.cyclonedx-gomod-$(CYCLONEDX_VERSION): MODULE := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
$(TOOLS)/.govulncheck-$(GOVULNCHECK_VERSION): MODULE := golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
$(TOOLS)/.syft-$(SYFT_VERSION): MODULE := github.com/anchore/syft/cmd/syft@$(SYFT_VERSION)
$(TOOLS)/.minisign-$(MINISIGN_VERSION) $(TOOLS)/.cyclonedx-gomod-$(CYCLONEDX_VERSION) $(TOOLS)/.govulncheck-$(GOVULNCHECK_VERSION) $(TOOLS)/.syft-$(SYFT_VERSION):
	@mkdir -p $(TOOLS)
	GOFLAGS= GOBIN=$(TOOLS) $(GO) install $(MODULE)
	@touch $@

# Part of the paths of the dashboards to test or draw, such as node.
DASHBOARDS ?=
FLEETTEST = $(GO) test -v -count 1 -timeout 60m ./grafana/fleettest -run '^Test(Dashboards|Month)$$' -dashboards '$(DASHBOARDS)'

.PHONY: test-dashboards
test-dashboards: build $(TOOLS)/prometheus ## Run every query of the dashboards on simulated nodes (DASHBOARDS=node)
	$(FLEETTEST) -fleet

.PHONY: render-dashboards
render-dashboards: build $(TOOLS)/prometheus grafana/render/node_modules ## Draw the dashboards to grafana/images (DASHBOARDS=node)
	$(FLEETTEST) -pictures

grafana/render/node_modules: grafana/render/package.json
	npm --prefix grafana/render install --ignore-scripts
	@touch $@

# Takes about 15 minutes. Each case has a node, so that more cases at once need more cores.
.PHONY: test-alerts
test-alerts: build $(TOOLS)/prometheus $(TOOLS)/alertmanager ## Inject faults in simulated nodes that a real Prometheus and Alertmanager watch
	$(GO) test -v -count 1 -timeout 60m -parallel 10 -run 'Alert|Fast' ./deploy/prometheus/e2e -e2e

HELM3_VERSION       ?= v3.22.0
HELM4_VERSION       ?= v4.3.1
KUBECONFORM_VERSION ?= v0.8.0
OPERATOR_VERSION    ?= v0.85.0

.PHONY: chart
chart: $(TOOLS)/helm4 ## Rewrite the chart's schema and README, and deploy/kubernetes, from the chart
	$(GO) test ./deploy/helm -run '^(TestSchema|TestReadme)$$' -count 1 -update
	$(GO) test ./deploy/helm -run '^TestManifests$$' -count 1 -update -helm $(TOOLS)/helm4

# Downloads the schemas of Kubernetes and of the Prometheus Operator as Go modules.
.PHONY: test-chart
test-chart: $(TOOLS)/helm3 $(TOOLS)/helm4 $(TOOLS)/kubeconform ## Test the Helm chart with Helm 3 and 4, and the plain manifests
	$(GO) test -v -count 1 -timeout 60m ./deploy/helm -helm $(TOOLS)/helm3,$(TOOLS)/helm4 \
		-kubeconform $(TOOLS)/kubeconform -kubernetes $(KUBERNETES_VERSION) -operator $(OPERATOR_VERSION)

CONTROL_PLANE = kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet

# Needs what make e2e-kubelet needs, and containernetworking-plugins. E2E_IMAGE is the path of an
# archive of the image with the stand-ins, named localhost/gpu_exporter:e2e, to test that image.
E2E_IMAGE ?=

.PHONY: e2e-chart
e2e-chart: build $(TOOLS)/helm3 $(TOOLS)/helm4 $(CONTROL_PLANE:%=$(TOOLS)/kubernetes-$(KUBERNETES_VERSION)/%) ## Install, upgrade and remove the chart on a real cluster in namespaces, as root
	$(GO) test -v -tags e2ekubelet,e2echart -count 1 -timeout 60m -run '^TestChart$$' ./cmd/gpu_exporter/e2ekubelet \
		-exporter $(BUILD)/gpu_exporter -kubernetes $(TOOLS)/kubernetes-$(KUBERNETES_VERSION) -helm $(TOOLS)/helm3,$(TOOLS)/helm4 -operator $(OPERATOR_VERSION) \
		$(if $(E2E_IMAGE),-image $(abspath $(E2E_IMAGE)))

$(TOOLS)/kubernetes-$(KUBERNETES_VERSION)/%:
	$(GO) run ./cmd/gpu_exporter/e2ekubelet/kubernetes -version $(KUBERNETES_VERSION) -out $(@D) $*

# Helm 3 and 4 are both named helm.
$(TOOLS)/helm3: $(TOOLS)/.helm3-$(HELM3_VERSION)
$(TOOLS)/helm4: $(TOOLS)/.helm4-$(HELM4_VERSION)
$(TOOLS)/.helm3-$(HELM3_VERSION): HELM_VERSION = $(HELM3_VERSION)
$(TOOLS)/.helm4-$(HELM4_VERSION): HELM_VERSION = $(HELM4_VERSION)
$(TOOLS)/.helm3-$(HELM3_VERSION) $(TOOLS)/.helm4-$(HELM4_VERSION):
	@mkdir -p $(TOOLS)/src/helm
	GOFLAGS= GOBIN=$(TOOLS)/src/helm $(GO) install helm.sh/helm/$(basename $(basename $(HELM_VERSION)))/cmd/helm@$(HELM_VERSION)
	mv $(TOOLS)/src/helm/helm $(TOOLS)/$(word 1,$(subst -, ,$(patsubst .%,%,$(@F))))
	@touch $@

$(TOOLS)/kubeconform: $(TOOLS)/.kubeconform-$(KUBECONFORM_VERSION)
$(TOOLS)/.kubeconform-$(KUBECONFORM_VERSION):
	GOFLAGS= GOBIN=$(TOOLS) $(GO) install github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM_VERSION)
	@touch $@

# Later versions need a module that the module proxy refuses.
NFPM_VERSION    ?= v2.45.2
# Debian and RPM need a digit at the start, and no hyphen. Commits after a tag are newer than it.
PACKAGE_VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null \
	| sed 's/^v//; s/-\([0-9]*\)-g/+\1.g/; s/-dirty$$/+dirty/; s/-/~/' | grep . || echo 0.0.0+g$$(git rev-parse --short HEAD))
MAINTAINER      ?= The gpu_exporter Authors <gpu_exporter@noreply.invalid>
# Architectures of the packages.
ARCHS           ?= amd64 arm64

.PHONY: packages
packages: $(TOOLS)/nfpm ## Build deb and rpm packages in build/packages (ARCHS='amd64 arm64')
	$(PACKAGE_ENV) ARCHS='$(ARCHS)' deploy/package/build.sh

PACKAGE_ENV   = VERSION='$(VERSION)' REVISION='$(REVISION)' NFPM=$(TOOLS)/nfpm PACKAGE_VERSION='$(PACKAGE_VERSION)' MAINTAINER='$(MAINTAINER)'
PACKAGE_ROOT := $(BUILD)/packages/root

.PHONY: test-packages
test-packages: $(TOOLS)/nfpm $(TOOLS)/promtool $(PACKAGE_ROOT)/.built ## Test the packages with lintian, rpmlint and a booted systemd, as root on Debian
	$(PACKAGE_ENV) $(GO) test -v -count 1 -timeout 60m ./deploy/package -root $(PACKAGE_ROOT)

# A Debian that boots.
$(PACKAGE_ROOT)/.built:
	@missing=; for program in mmdebstrap systemd-nspawn lintian rpmlint rpm fish zsh; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ]; then DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends mmdebstrap systemd-container lintian rpmlint rpm fish zsh; fi
	rm -rf $(PACKAGE_ROOT)
	@mkdir -p $(PACKAGE_ROOT)
	mmdebstrap --variant=minbase --include=systemd-sysv,dbus,man-db,procps,rpm bookworm $(PACKAGE_ROOT)
	echo '127.0.0.1 localhost' >$(PACKAGE_ROOT)/etc/hosts
	@touch $@

$(TOOLS)/nfpm: $(TOOLS)/.nfpm-$(NFPM_VERSION)
$(TOOLS)/.nfpm-$(NFPM_VERSION):
	@mkdir -p $(TOOLS)
	GOFLAGS= GOBIN=$(TOOLS) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	@touch $@

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BUILD)

$(TOOLS)/prometheus $(TOOLS)/promtool: $(TOOLS)/%: $(TOOLS)/.%-$(PROMETHEUS_VERSION)
$(TOOLS)/.prometheus-$(PROMETHEUS_VERSION) $(TOOLS)/.promtool-$(PROMETHEUS_VERSION): $(TOOLS)/.%-$(PROMETHEUS_VERSION):
	@mkdir -p $(TOOLS)
	GOFLAGS= GOBIN=$(TOOLS) $(GO) install github.com/prometheus/prometheus/cmd/$*@$(PROMETHEUS_VERSION)
	@touch $@

$(TOOLS)/golangci-lint: $(TOOLS)/.golangci-$(GOLANGCI_VERSION)
$(TOOLS)/.golangci-$(GOLANGCI_VERSION):
	@mkdir -p $(TOOLS)
	GOFLAGS= GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@touch $@

KUBERNETES := $(TOOLS)/kubernetes-$(KUBERNETES_VERSION)
KUBELET_TESTS = $(GO) test -v -tags e2ekubelet -count 1 -timeout 15m -run '$(1)' ./cmd/gpu_exporter/e2ekubelet \
	-exporter $(BUILD)/gpu_exporter -kubernetes $(KUBERNETES)

.PHONY: e2e-kubelet
e2e-kubelet: build ## Test beside a real kubelet, containerd and API server, as root
	@missing=; for program in containerd runc etcd ip; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends containerd runc etcd-server iproute2; \
	fi
	@$(call KUBELET_TESTS,^$$) # fails early if they cannot run here
	$(MAKE) --no-print-directory $(KUBERNETES)/.built
	$(call KUBELET_TESTS,.)

# Takes some minutes.
$(KUBERNETES)/.built:
	$(GO) run ./cmd/gpu_exporter/e2ekubelet/kubernetes -version $(KUBERNETES_VERSION) -out $(KUBERNETES) kubelet kube-apiserver
	@touch $@
