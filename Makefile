# The two commands of the README. Each makes its virtual environment anew.
PYTHON ?= python3

.NOTPARALLEL:
.PHONY: demo test venv lint clean

demo: venv
	.venv/bin/opo compare --preset tiny

test: venv lint
	.venv/bin/python -m pytest

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

venv:
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/bin/python -m pip install --quiet --editable . --group dev

clean:
	rm -rf .venv .venv-wheel dist runs
