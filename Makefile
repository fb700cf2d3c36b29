# Every command a developer needs; plain `make` lists them. Works with GNU make 3.81 and later.

VENV          := .venv
GENERATOR     := .venv-generate
BIN           := $(VENV)/bin
RUN_NEEDS     := -e '.[server,cli,grpcurl]'
DEV_NEEDS     := -e '.[server,cli,grpcurl,dev]'
# The generator has an environment of its own: its protobuf < 7 would drag the server's packages down. All of it is
# pinned, since each of these shapes the output or is needed to run it (setuptools: an environment of uv's has none).
# 1.76 is the oldest runtime we support: generated code refuses older ones and accepts newer.
# googleapis-common-protos brings the file of ErrorInfo, which no package of npm has.
GENERATOR_NEEDS := googleapis-common-protos==1.76.0 grpcio==1.76.0 grpcio-tools==1.76.0 mypy-protobuf==5.1.0 protobuf==6.33.6 \
                   setuptools==80.9.0 types-protobuf==7.35.1.20260906 typing_extensions==4.16.0
GENERATOR_READY := $(GENERATOR)/.ready-$(firstword $(shell echo '$(GENERATOR_NEEDS)' | cksum))
# Pinned: another version may write the same lock differently.
LOCKER        := .venv-lock
LOCKER_NEEDS  := uv==0.13.9
LOCKER_READY  := $(LOCKER)/.ready-$(firstword $(shell echo '$(LOCKER_NEEDS)' | cksum))
# The other languages' own generators, pinned for the same reason, by what their toolchain installs. Java's stubs are made
# by Maven, in the project that uses them: see examples/java/pom.xml.
PLUGINS            := build/plugins
GO_NEEDS           := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
TYPESCRIPT_NEEDS   := @bufbuild/protoc-gen-es@2.13.0
GO_PLUGINS         := $(PLUGINS)/go-$(firstword $(shell echo '$(GO_NEEDS)' | cksum))
TYPESCRIPT_PLUGINS := $(PLUGINS)/typescript-$(firstword $(shell echo '$(TYPESCRIPT_NEEDS)' | cksum))

.DEFAULT_GOAL := help
.NOTPARALLEL:  # two set-ups in one environment would break it, and the last line of `make test` is pytest's
.PHONY: help run demo example bench bench-quick bench-peers bench-languages test soak browser screenshots quick verify format fix lint types layers protos generated-check dockerfile generate lock clean

help:
	@awk -F ':.*## ' '/^##: / { print "\n" substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##: Using it

run: $(VENV)/.ready-run  ## serve on SQLite: STORE=sqlite:///jobwire.db LISTEN=127.0.0.1:7272
	@exec $(BIN)/jobwire serve $(if $(STORE),--store '$(STORE)') $(if $(LISTEN),--listen '$(LISTEN)')

demo: $(VENV)/.ready-run  ## 2,000 jobs while workers are killed and redeployed: STORE=redis://127.0.0.1:6379
	@exec $(BIN)/python -m examples.python.demo $(if $(STORE),--store '$(STORE)')

example: $(VENV)/.ready-run  ## a server, a worker, a producer of a language: make example LANGUAGE=go
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec examples/run.sh $(or $(LANGUAGE),python)

bench: $(VENV)/.ready-dev  ## what of the promises holds, twelve minutes: make bench ARGS='--scenario pick-up'
	@exec $(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.ready-dev  ## the same in two minutes, printed only
	@exec $(BIN)/python -m benchmarks --quick $(ARGS)

bench-peers: $(VENV)/.ready-dev  ## beside other job servers, ten minutes: make bench-peers ARGS='--only bullmq'
	@exec $(BIN)/python -m benchmarks.peers $(ARGS)

bench-languages: $(VENV)/.ready-dev  ## the same calls from Go and from Python, seven minutes
	@exec $(BIN)/python -m benchmarks.languages $(or $(ARGS),--publish)

##: Working on it

# A part is told from the whole by having ARGS: it runs in one process, which starts sooner than several. One more than
# there are cores, since tests wait for servers a good part of the time; no more than four, each of which starts servers of
# its own: a container may see many more cores than it gets.
# The other languages' examples are built beforehand, side by side; what cannot be is skipped by the tests, by name.
test: WORKERS = $(shell $(BIN)/python -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')
test: $(VENV)/.ready-dev  ## the whole suite, on every core; a part of it: make test ARGS='-k lease'
	@$(if $(ARGS),,$(BIN)/python -m tests.polyglot.languages)
	@exec $(BIN)/python -m pytest $(or $(ARGS),--numprocesses $(WORKERS) --dist worksteal)

soak: $(VENV)/.ready-dev  ## faults and tapes by other dice each time, until MINUTES=60 are over
	@exec $(BIN)/python -m tests.soak $(if $(MINUTES),--minutes '$(MINUTES)')

# The browser of the tests in tests/web/browser/. Where it cannot be had they are skipped, by name.
browser:  ## Chromium, for the tests of the dashboard: Debian's, when root; else says what to install
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  found=$$(command -v $$name) && { echo "browser ok: $$found"; exit 0; }; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Debian's chromium, once"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  for try in 1 2; do \
	    apt-get install --yes --quiet=2 --no-install-recommends chromium >/dev/null 2>&1 && { echo "browser ok"; exit 0; }; \
	    apt-get update --quiet=2 >/dev/null 2>&1 || break; \
	  done; \
	fi; \
	echo "SKIPPED browser: no Chromium here; on Debian, as root, apt-get install chromium, elsewhere any Chromium or Chrome on PATH"

screenshots: browser $(VENV)/.ready-dev  ## the pictures of the dashboard in docs/figures/, from a shop at work: a minute
	@exec $(BIN)/python -m tests.web.browser.pictures

quick: format lint types layers protos  ## what a commit needs; then the tests of what you changed

verify: format lint types layers protos generated-check dockerfile test  ## everything CI checks

format: $(VENV)/.ready-dev  ## is the Python formatted? (make fix does it)
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted: make fix"; exit 1; }
	@echo "format ok"

fix: $(VENV)/.ready-dev  ## format Python and protos, mend what ruff can
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .
	@$(call need,buf); "$$tool" format --write

lint: $(VENV)/.ready-dev  ## ruff
	@$(BIN)/ruff check --quiet --output-format concise .
	@echo "lint ok"

types: $(VENV)/.ready-dev  ## mypy, strict
	@$(BIN)/mypy --no-error-summary
	@echo "types ok"

layers: $(VENV)/.ready-dev  ## import-linter: which folder may import which
	@report=$$($(BIN)/lint-imports --no-logo --no-cache) || { echo "$$report"; exit 1; }
	@echo "layers ok"

protos: $(VENV)/.ready-dev  ## buf: the protos' style and format
	@$(call need,buf); "$$tool" lint && "$$tool" format --diff --exit-code && echo "protos ok"

dockerfile: $(VENV)/.ready-dev  ## hadolint
	@$(call need,hadolint); "$$tool" Dockerfile && echo "dockerfile ok"

generate: $(GENERATOR_READY) $(VENV)/.ready-dev  ## the stubs in generated/, from protos/
	@find generated/python -name '*_pb2*' -type f -delete
	@$(call protoc,generated/python)
	@$(need-go); rm -rf generated/go/jobwire; $(call stubs-of-go,generated/go)
	@$(need-typescript); rm -rf generated/typescript/jobwire generated/typescript/google; $(call stubs-of-typescript,generated/typescript)

# What is written by hand in generated/ is named here; the rest must be what the generators make today.
generated-check: $(GENERATOR_READY) $(VENV)/.ready-dev  ## are the committed stubs those of the protos?
	@$(call fresh,python,protoc,-x __init__.py -x py.typed -x __pycache__)
	@$(need-go); $(call fresh,go,stubs-of-go,-x 'go.*' -x buf.gen.yaml)
	@$(need-typescript); $(call fresh,typescript,stubs-of-typescript,-x package.json -x buf.gen.yaml -x node_modules)

# The hashes are those of every file of a release: the image may be built for any machine. No registry is named.
lock: $(LOCKER_READY)  ## the newest packages that pyproject.toml allows into the image: deploy/image/, each with its hashes
	@$(call locked,--extra server --extra cli pyproject.toml,deploy/image/requirements.txt)
	@$(LOCKER)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	| $(call locked,-,deploy/image/build.txt)

# $(call locked,what,file)
locked = $(LOCKER)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
         --custom-compile-command 'make lock' --output-file $(2) $(1)

clean:  ## environments and caches; never a database
	rm -rf $(VENV) $(GENERATOR) $(LOCKER) build dist examples/java/target examples/typescript/dist examples/typescript/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# ---------------------------------------------------------------------------------------------------------------------
# Set-up. A stamp is written when everything before it went well, so an interrupted set-up starts again. Sources are
# installed as links (-e): only pyproject.toml makes an environment stale.

$(VENV)/.ready-run: pyproject.toml
	$(call set-up,$(VENV),$(RUN_NEEDS))
	@touch $@

# `dev` holds what `run` needs as well, hence both stamps.
$(VENV)/.ready-dev: pyproject.toml
	$(call set-up,$(VENV),$(DEV_NEEDS))
	@touch $(VENV)/.ready-run $@

$(LOCKER_READY):
	$(call set-up,$(LOCKER),$(LOCKER_NEEDS))
	@touch $@

$(GENERATOR_READY):
	$(call set-up,$(GENERATOR),$(GENERATOR_NEEDS))
	@touch $@

# $(call set-up,folder,what pip installs): with uv where there is one, else with the first Python that will do.
# An `.unfinished` that is still there means the last set-up was cut short: what it left is not worth trusting.
define set-up
	@echo "Setting up $(1): about half a minute, once, and again when its requirements change"
	@set -eu; \
	if [ -e $(1)/.unfinished ] || ! $(1)/bin/python -c '' 2>/dev/null; then rm -rf $(1); fi; \
	if command -v uv >/dev/null; then \
	  [ -d $(1) ] || { mkdir $(1); : >$(1)/.unfinished; uv venv --quiet --allow-existing --python '>=3.11' $(1); }; \
	  : >$(1)/.unfinished; \
	  uv pip install --quiet --python $(1)/bin/python $(2); \
	else \
	  [ -d $(1) ] || { $(find-python); mkdir $(1); : >$(1)/.unfinished; $$python -m venv $(1); }; \
	  : >$(1)/.unfinished; \
	  $(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2); \
	fi; \
	rm $(1)/.unfinished
endef

# 3.11 first: it is what CI runs. Debian ships Python without ensurepip, which its environments need.
define find-python
	python=; \
	for candidate in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if $$candidate -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	  echo "$$candidate cannot make a virtual environment: on Debian or Ubuntu, apt install python3-venv" >&2; \
	done; \
	[ -n "$$python" ] || { echo "jobwire needs uv, or Python 3.11 or later with venv; found neither on PATH" >&2; exit 1; }
endef

# $(call protoc,folder): messages of every file, stubs and servicers of those that hold a service (for any other file the
# plugin writes an empty module). protoc finds protoc-gen-mypy on PATH; `quiet:` keeps it from listing what it writes.
define protoc
	export PATH="$(CURDIR)/$(GENERATOR)/bin:$$PATH"; \
	python -m grpc_tools.protoc -I protos --python_out=$(1) --mypy_out=quiet:$(1) protos/jobwire/v1/*.proto && \
	python -m grpc_tools.protoc -I protos --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) protos/jobwire/v1/*_service.proto
endef

# $(call stubs-of-go,folder): as generated/go/buf.gen.yaml says.
define stubs-of-go
	PATH="$(CURDIR)/$(GO_PLUGINS):$(BIN):$$PATH" buf generate --template generated/go/buf.gen.yaml --output $(1)
endef

# $(call stubs-of-typescript,folder): ErrorInfo as well, since a client reads why a call was refused.
define stubs-of-typescript
	export PATH="$(CURDIR)/$(TYPESCRIPT_PLUGINS)/node_modules/.bin:$(BIN):$$PATH"; \
	mkdir -p $(PLUGINS)/protos/google/rpc; \
	cp $(GENERATOR)/lib/python3*/site-packages/google/rpc/error_details.proto $(PLUGINS)/protos/google/rpc/; \
	for protos in . $(PLUGINS)/protos; do \
	  buf generate $$protos --template generated/typescript/buf.gen.yaml --output $(1) || exit 1; \
	done
endef

# $(call fresh,language,how it is generated,what is written by hand)
define fresh
	fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	{ $(call $(2),"$$fresh"); } || exit 1; \
	diff -r --brief $(3) generated/$(1) "$$fresh" || { echo "Stale stubs: make generate"; exit 1; }; \
	echo "generated ok: $(1)"
endef

# Each language's generators, installed once; where that cannot be done the language is skipped, by name.
define need-go
	$(call need,go); [ -e $(GO_PLUGINS)/.ready ] || { echo "Installing Go's generators, once"; \
	  (for plugin in $(GO_NEEDS); do GOBIN="$(CURDIR)/$(GO_PLUGINS)" go install $$plugin || exit 1; done) \
  && touch $(GO_PLUGINS)/.ready; } \
	|| { echo "SKIPPED $@ of Go: its generators could not be installed"; exit 0; }
endef
define need-typescript
	$(call need,npm); [ -e $(TYPESCRIPT_PLUGINS)/.ready ] || { echo "Installing TypeScript's generators, once"; \
	  npm install --silent --prefix $(TYPESCRIPT_PLUGINS) --no-package-lock --ignore-scripts $(TYPESCRIPT_NEEDS) \
	  && touch $(TYPESCRIPT_PLUGINS)/.ready; } \
	|| { echo "SKIPPED $@ of TypeScript: its generators could not be installed"; exit 0; }
endef

# $(call need,tool): its path in $$tool; where it has no build the target is skipped, by name.
need = tool=$$(PATH="$(BIN):$$PATH" command -v $(1)) || { echo "SKIPPED $@: this machine has no $(1)"; exit 0; }
