# make demo   shows the program on a shipped image; needs Go and make
# make test   installs the Debian packages the tests need, then runs every test
# make more   longer rounds, with more packages: what make test has no time for
# Long runs: make fuzz | torture | torture-lvm | kill | bench

GO        ?= go
PREFIX    ?= /usr/local
FUZZTIME  ?= 5m
FUZZROUND ?= 2000x
# All tests run with -race, but for programs whose tests run the binary, which has none. Those of the parsers run their
# short rounds here, and the long ones, without it, in make more.
RACE      := ./sparse/... ./cbt/... ./internal/... ./cmd/... ./fuzz ./bench/...
SHORT     := ./qcow2/... ./lvm/...
PROGRAMS  := ./fuzz/base/... ./fuzz/kill/... ./fuzz/lvm/... ./fuzz/torture/... ./fuzz/wake/...
CBT       := CBT=$(CURDIR)/bin/cbt
BIN       := bin/cbt
# What version prints: the commit and its day, where git knows them, so that one commit gives one binary.
COMMIT    := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
DATE      := $(shell git log -1 --format=%cs 2>/dev/null)
LDFLAGS   := -s -w -X cbt/cmd/cbt/cli.commit=$(COMMIT) -X cbt/cmd/cbt/cli.date=$(DATE)

.PHONY: build demo test more packages lint cross fuzz torture torture-lvm kill bench install clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/cbt

demo: build
	@scripts/demo.sh bin/cbt

# The last line counts the tests.
test: packages lint cross build
	CBT_REQUIRE_TOOLS=1 $(GO) run ./internal/tally \
		-count=1 -timeout=30m -race $(RACE) -- -count=1 -timeout=30m -race -short $(SHORT) -- \
		-count=1 -timeout=30m $(PROGRAMS)

# Tests whose names begin with TestMore, the long rounds of the parsers, and a round of every fuzz target.
more: build
	@scripts/packages.sh test more
	scripts/fuzz.sh $(FUZZROUND)
	CBT_MORE=1 CBT_REQUIRE_TOOLS=1 $(GO) run ./internal/tally -count=1 -timeout=30m -run '^TestMore' ./... -- \
		-count=1 -timeout=30m -skip '^TestMore' $(SHORT)

packages:
	@scripts/packages.sh test

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -d . ; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

cross:
	scripts/cross.sh

fuzz: packages
	scripts/fuzz.sh $(FUZZTIME)

torture: torture-lvm
torture kill: packages build
	$(CBT) $(GO) run ./fuzz/$@ $(ARGS)

torture-lvm: packages build
	$(CBT) $(GO) run ./fuzz/lvm $(LVM_ARGS)

bench: build
	@scripts/packages.sh test bench
	$(CBT) $(GO) run ./bench $(ARGS)

install: build
	install -D bin/cbt $(DESTDIR)$(PREFIX)/bin/cbt
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/cbt man $(DESTDIR)$(PREFIX)/share/man/man1
	bin/cbt completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cbt
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	bin/cbt completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cbt

clean:
	rm -rf bin
