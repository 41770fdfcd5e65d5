CARGO ?= cargo
# Only sweeps on a cluster need the types of its API, which take longer to build than all the rest.
on_cluster = $(if $(shell grep -s '^on: *cluster' '$(FILE)'),--features bench/cluster)

.PHONY: help build table1 report sweep test e2e faults soak layers constant-time fuzz lint fmt supply-chain semver image sbom image-check \
  reproducible chart-test cluster-up cluster-down

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## Build the release program bench, which is its five parties too
	$(CARGO) build --locked --release -p bench $(on_cluster)

table1: build ## The main job: the paper's Table 1, on this machine
	$(CARGO) run --locked --quiet --release -p bench -- table1

report: build ## Table 1 and larger batches, several times each, as a page: results/report/report.html
	$(CARGO) run --locked --quiet --release -p bench -- sweep bench/sweeps/report.yaml --out results/report --report

sweep: ## Measure the cells of the sweep file FILE, with a report; the same command continues after Ctrl-C
	@test -n '$(FILE)' || { echo 'make sweep: name a file, such as FILE=bench/sweeps/networks.yaml' >&2; exit 2; }
	$(CARGO) build --locked --release -p bench $(on_cluster)
	$(CARGO) run --locked --quiet --release -p bench $(on_cluster) -- sweep '$(FILE)' --out 'results/$(basename $(notdir $(FILE)))' --report

# Always of the whole workspace with all features: other features of one crate would build anew
# all that depend on it.
all = --workspace --all-features

test: lint ## Format, lints, unit, property and five-process tests, the examples, and most of e2e
	$(CARGO) test --locked $(all)
	for example in hospitals logistic_regression custom_network; do \
	  $${CARGO_TARGET_DIR:-target}/debug/examples/$$example || exit 1; \
	done
	$(CARGO) test --locked $(all) --test e2e -- --brief

e2e: ## The operator on a real Kubernetes: that of KUBECONFIG, or a throwaway one; ONLY=words picks cases
	$(CARGO) test --locked $(all) --test e2e -- $(ONLY)

faults: ## Faults at every message of five processes; `make test` tries a few messages; ONLY=words
	$(CARGO) test --locked $(all) --no-run
	$(CARGO) test --locked $(all) --test faults -- --all $(ONLY)

soak: ## 100,000 inferences through one set of processes: memory, latency and counters; `make test` does 10,000
	$(CARGO) test --locked $(all) --no-run
	$(CARGO) test --locked $(all) --test soak -- --inferences 100000

layers: ## 1,000 images through every layer of the networks with exact ReLU, bit for bit against integers; a few minutes
	$(CARGO) test --locked $(all) --no-run
	$(CARGO) test --locked $(all) --test layers -- --ignored --nocapture

constant-time: ## Whether branches or addresses depend on keys, shares or masks, by valgrind over whole sessions; a minute with the build
	CARGO='$(CARGO)' hack/constant-time.sh

fuzz: ## Fuzz every decoder for TIME seconds each, by default 60; `make test` has a short run without a fuzzer
	fuzz/run.sh $(or $(TIME),60)

lint: ## Check the format, what the chart renders, and lints with warnings denied
	hack/chart-test.sh render
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked $(all) --all-targets -- -D warnings
	$(CARGO) clippy --locked $(all) --test e2e -- -D warnings
	$(CARGO) clippy --locked -p spdz --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked $(all) --no-deps --quiet

fmt: ## Format the code
	$(CARGO) fmt --all

supply-chain: ## Check licences, sources and advisories of all dependencies; REQUIRE_ADVISORIES=1 fails without the database
	hack/supply-chain.sh

semver: ## Compare the interface of the library spdz with that of the commit BASE, by default main, by the rules of SemVer
	PATH=$$(hack/pinned.sh cargo-semver-checks):$$PATH $(CARGO) semver-checks --package spdz --baseline-rev '$(or $(BASE),main)'

image: ## Pack target/image/secure-inference.tar; IMAGE names it, ENGINE=podman or docker builds the Containerfile
	CARGO='$(CARGO)' IMAGE='$(IMAGE)' ENGINE='$(ENGINE)' hack/image/build.sh

sbom: image ## Write the image's bill of materials, target/image/secure-inference.cdx.json, in CycloneDX's JSON
	hack/image/sbom.sh

image-check: sbom ## Check the image: its files, no secrets, the system's libraries, the bill of materials
	hack/image/check.sh

reproducible: ## Build the image of the commit twice from nothing, in other folders, and compare every byte
	hack/image/reproducible.sh

chart-test: ## Test the Helm chart on the cluster of KUBECONFIG, by default that of cluster-up with the image loaded
	KUBECONFIG=$${KUBECONFIG:-$$(hack/test-cluster/cluster.sh kubeconfig)} hack/chart-test.sh

cluster-up: ## Start a real Kubernetes of one node for tests (Debian 12, root); built the first time, 7 minutes
	hack/test-cluster/cluster.sh up

cluster-down: ## Stop it, and restore the machine
	hack/test-cluster/cluster.sh down
