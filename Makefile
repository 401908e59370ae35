# The two commands of this repository are `make book` and `make test`; `make help` lists the rest.
# Needs a POSIX shell, any make (GNU make 3.81, as on macOS, will do) and Python 3.11 or newer.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
NOTEBOOKS = book/*.ipynb course/*.ipynb
OTTER = $(VENV)/otter
# What `make test` runs: .ci/run passes chapters copied out of the source tree instead.
CHAPTERS = book
# Test processes: one for each processor, each on one thread, but no more than four (memory).
WORKERS = logical
PORT = 8000

.PHONY: help book test course site-test pdf bench lint format map env serve clean

help: ## list the commands
	@echo "make COMMAND, where COMMAND is one of"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r name what; do printf '  %-9s %s\n' "$$name" "$$what"; done

book: fetch ## execute every chapter and build the site into _build/html
	@$(BIN)/python tools/build_book.py

fetch: $(STAMP) ## download a language model and its sentences (96 MB), by hash, once
	@$(BIN)/zotutor fetch || echo "Going on without: the chapters say in a line what is not shown."

test: $(STAMP) ## run the package's tests, its doctests and every chapter
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 \
		--dist worksteal --cov=zotutor --cov-fail-under=95 tests zotutor $(CHAPTERS)

course: $(OTTER)/.installed ## build the problem set and grade four submissions (otter-grader)
	@$(OTTER)/bin/python tools/problem_set.py build
	OMP_NUM_THREADS=1 $(OTTER)/bin/python -m pytest -q course/test_course.py

site-test: ## test the site that `make book` built, in headless Chromium (needs Node.js)
	@sh tools/site_browser.sh _build/html

pdf: $(STAMP) ## make one PDF of the site that `make book` built (needs the same)
	@$(BIN)/python tools/make_pdf.py

bench: $(STAMP) ## measure every comparison (about half an hour); the book reads the records
	$(BIN)/python -m benchmarks --record

lint: $(STAMP) ## check format, style, types, spelling, and that notebooks are stripped
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/nbstripout --keep-id --verify $(NOTEBOOKS)
	$(BIN)/python -m pytest -q -m lint tests

format: $(STAMP) ## rewrite code and notebooks as lint wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/nbstripout --keep-id $(NOTEBOOKS)

map: $(STAMP) ## write MAP.md: from chapters to modules to tests
	$(BIN)/python tools/map.py

env: $(STAMP) ## create .venv with the exact versions of requirements.lock

serve: book ## build the book, then serve it at http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## remove what book and test made; .venv stays
	rm -rf _build build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find zotutor tests tools benchmarks book -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted installation leaves no stamp, so the next make repeats it.
$(STAMP): pyproject.toml requirements.lock tools/make_env.sh
	@sh tools/make_env.sh "$(PYTHON)" "$(VENV)"
	@touch $@

$(OTTER)/.installed: $(STAMP) course/requirements.txt tools/make_course_env.sh
	@sh tools/make_course_env.sh "$(VENV)" "$(OTTER)"
	@touch $@
