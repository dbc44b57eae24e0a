# The two commands of the README set up what they need: see deploy/setup.
.PHONY: demo test bench bench-revoke fuzz aws-lc setup check lint types clean

demo: setup ## the whole fabric on this machine, with proofs; FLAGS="--keep --rows 1000"
	@.venv/bin/fabric demo $(FLAGS)

test: setup ## every check and every test, those with a whole fabric one after another; FLAGS="-k lag"
	@$(MAKE) --no-print-directory check
ifdef FLAGS
	@.venv/bin/python -m pytest $(FLAGS)
else
	@.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --ignore tests/integration
	@.venv/bin/python -m pytest tests/integration
endif

bench: setup ## the fabric against its peers, report in loadtest/out; FLAGS="--seconds 1" is short
	@.venv/bin/python -c 'import matplotlib, tink, httpx2' 2>/dev/null \
	  || .venv/bin/pip install -q -c constraints.txt -e '.[bench]'
	@.venv/bin/python -m loadtest $(FLAGS)

bench-revoke: setup ## how fast a revocation works, also a hidden one; FLAGS="--trials 5" is short
	@.venv/bin/python -m loadtest.revoke $(FLAGS)

fuzz: setup ## every parser of foreign bytes under a coverage-guided fuzzer; FLAGS="--seconds 600"
	@.venv/bin/python -m tests.fuzz $(FLAGS)

aws-lc: setup ## cryptography built on AWS-LC: faster signatures; needs Rust; FLAGS=--undo
	@deploy/aws-lc $(FLAGS)

setup: ## Debian packages, Kafka's jars, .venv; does nothing the second time
	@deploy/setup

check: lint types ## what a change must pass before it is handed over, without servers

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check -q .
	@.venv/bin/lint-imports

types: setup
	@.venv/bin/mypy

clean: ## remove what setup and the tests made in this folder
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
