#!/usr/bin/env bash
# Checks and measures stepscope on this machine's GPU: run.sh [OUT_DIR] [options of `stepscope gpu-check`]
# Needs the NVIDIA driver and nothing else: the kernels lie compiled beside this file. Nothing is fetched, and no setting of the
# card is changed. It takes up to 8 minutes; results.json and what each stage printed lie in OUT_DIR (gpu-check) afterwards.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=gpu-check
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  out=$1
  shift
fi
arguments=(--fixtures "$here/fixtures" --out "$out")
# sglang's wheels and sgl_kernel.tar.xz, packed for a machine without network.
if [ -d "$here/sglang" ]; then arguments+=(--sglang "$here/sglang"); fi
exec "$here/stepscope" gpu-check "${arguments[@]}" "$@"
