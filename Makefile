# make build     the static, stripped binary bin/supervisor
# make test      everything: set-up, format, vet, staticcheck, unit tests, fuzzing, containers, VM (under 30 minutes)
# make check     the part of it that needs no containers (2 minutes)
# make demo      ten reloads and a kill of a server under load, on this machine, without systemd
# make chaos     kills at every point and a storm of ten minutes, on all systemds (half an hour)
# make report    what the clients of the last "make test" or "make chaos" counted, case by case, as a table
# make bench     the figures of the budget beside what kernel and worker need without a supervisor
# make matrix    all real servers, ten reloads each; writes docs/matrix.md (two hours; needs npm; MATRIX="nginx redis" for some)
# make install   DESTDIR, PREFIX: the binary as it was built, the unit, the manual pages and the examples
# make clean     what the targets above made in the tree

PREFIX  ?= /usr
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

export CGO_ENABLED = 0

.PHONY: build test check demo bench chaos report matrix install clean
build:
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/supervisor ./cmd/supervisor

# Only if it is not there: "sudo make install" has no Go in its PATH.
bin/supervisor:
	@command -v go >/dev/null || { echo 'bin/supervisor is not built yet: run "make build", with go in PATH' >&2; exit 1; }
	$(MAKE) build

test:
	scripts/test.sh setup format vet staticcheck unit unit-fault fuzz demo containers servers-vm

check:
	scripts/test.sh setup format vet staticcheck unit

demo:
	scripts/demo.sh

bench:
	scripts/setup.sh
	cd test/vm && go test -tags vm -count=1 -timeout 15m -run '^TestBench$$'

MATRIX ?= all
matrix:
	scripts/setup.sh
	SUPERVISOR_MATRIX='$(MATRIX)' go test -tags vm -count=1 -timeout 3h -run '^TestMatrix$$' -v ./test/matrix/

chaos:
	scripts/test.sh setup chaos

report:
	@go run ./test/report

install: bin/supervisor
	install -D -m 755 bin/supervisor $(DESTDIR)$(PREFIX)/bin/supervisor
	for unit in units/*.service; do \
	    sed 's|/usr/bin/supervisor|$(PREFIX)/bin/supervisor|' $$unit | \
	        install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/} || exit 1; \
	done
	for page in man/*.[1-8]; do \
	    install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; \
	done
	cd units && for file in $$(find examples -type f); do \
	    install -D -m 644 "$$file" "$(DESTDIR)$(PREFIX)/share/doc/supervisor/$$file" || exit 1; \
	done
	install -d -m 755 $(DESTDIR)/etc/supervisor
ifeq ($(DESTDIR),)
	@echo 'Now: systemctl daemon-reload; and after an upgrade, for the services that run: supervisor reexec --all'
endif

clean:
	rm -rf bin results
