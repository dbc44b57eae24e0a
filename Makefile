# The two commands of the README set up what they need: see deploy/setup.
.PHONY: demo test setup check lint types clean

demo: setup ## the whole fabric on this machine, with proofs; FLAGS="--keep --rows 1000"
	@.venv/bin/fabric demo $(FLAGS)

test: setup ## every check and every test
	@$(MAKE) --no-print-directory check
	@.venv/bin/python -m pytest $(FLAGS)

setup: ## Debian packages, Kafka's jars, .venv; does nothing the second time
	@deploy/setup

check: lint types ## what a change must pass before it is handed over, without servers

lint:
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check -q .
	@.venv/bin/lint-imports

types:
	@.venv/bin/mypy

clean: ## remove what setup and the tests made in this folder
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
