# The course's two commands are `make lab` and `make test`. Everything they
# make or install lives in one folder, .crashcourse, which `make clean` removes.

export CRASHCOURSE_ROOT := $(CURDIR)
export CRASHCOURSE_STATE ?= $(CURDIR)/.crashcourse
CRASHCOURSE := $(CRASHCOURSE_STATE)/bin/crashcourse

.PHONY: help lab test test-browser test-versions pictures bench worth clean build

help:
	@echo 'make lab     open the notebooks: servers, kernel, JupyterLab (Ctrl-C stops all of it)'
	@echo 'make test    run every check and every test'
	@echo 'make test-browser   step through a notebook in a real browser (needs Chromium)'
	@echo 'make test-versions  run the code that talks to the servers on PostgreSQL 16, 17, 18 and RabbitMQ 4 (needs npm, and apt)'
	@echo 'make pictures       the same, and make the pictures of docs/pictures anew'
	@echo 'make bench   measure, against what one would use instead'
	@echo 'make worth   measure what the judge finds, and by what (hours)'
	@echo 'make clean   stop what runs and remove all that was made, progress included'
	@echo
	@echo 'After the first of them, $(CRASHCOURSE) --help'

lab: build
	@exec $(CRASHCOURSE) lab $(LABFLAGS)

test: build
	@.ci/test

test-browser: build
	@$(CRASHCOURSE) lab --prepare
	@CRASHCOURSE_BROWSER=1 $(CRASHCOURSE) up -- go test -count=1 -run TestBrowser ./cmd/crashcourse/internal/notebooks

test-versions: build
	@.ci/versions/run

pictures: build
	@mkdir -p docs/pictures
	@CRASHCOURSE_SHOTS='$(CURDIR)/docs/pictures' $(MAKE) --no-print-directory test-browser
	@rm -f docs/pictures/recorded.png

bench: build
	@.ci/bench $(BENCHFLAGS)

worth: build
	@.ci/worth

clean:
	@if [ -e '$(CRASHCOURSE_STATE)/run.json' ]; then $(MAKE) --no-print-directory build && $(CRASHCOURSE) down --purge; fi
	@rm -rf '$(CRASHCOURSE_STATE)'

build:
	@command -v go >/dev/null || { echo 'make: there is no go command on the PATH: install Go 1.26 or newer (https://go.dev/dl), or add its bin folder to PATH' >&2; exit 1; }
	@[ -e '$(CRASHCOURSE)' ] || echo 'Building the crashcourse command (the first time its modules are fetched) …'
	@CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off go build -o '$(CRASHCOURSE)' ./cmd/crashcourse
