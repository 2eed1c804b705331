#!/usr/bin/env bash
# The bench on one GPU, for a machine without a network. Results go to $OUT as they come.
#   bash benchmarks/lab_gpu.sh smoke [SECONDS]                      # does everything work, and how fast is which engine?
#   bash benchmarks/lab_gpu.sh main SECONDS [FLAGS...]              # the queue, e.g. --at-once 8
# The queue is .lab/queue.json where there is one, else benchmarks/lab_queue.json; likewise the variants.
set -uo pipefail
export PYTHONPATH=src PYTHONUNBUFFERED=1 OMP_NUM_THREADS=8 TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
OUT=${OUT:-.lab/out}
mkdir -p "$OUT"
first() { if [ -e ".lab/$1.json" ]; then echo ".lab/$1.json"; else echo "benchmarks/lab_$1.json"; fi; }
[ -e .lab/inductor.tgz ] && tar xzf .lab/inductor.tgz -C /tmp
[ -e .lab/results.jsonl ] && cp .lab/results.jsonl "$OUT/results.jsonl"
case $1 in
smoke)
  limit=${2:-180}
  nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
  python3 benchmarks/lab.py queue benchmarks/lab_smoke.json --variants benchmarks/lab_variants.json --device cuda \
    --at-once 8 --deadline 60 --out "$OUT/smoke.jsonl" 2>&1 | tee "$OUT/smoke.log"
  python3 benchmarks/lab.py table "$OUT/smoke.jsonl"
  timeout $((limit - SECONDS)) python3 benchmarks/lab.py speed --device cuda --numbers 1,8 --steps 64 2>&1 | tee "$OUT/speed.log"
  [ -d /tmp/inductor ] && tar czf "$OUT/inductor.tgz" -C /tmp inductor
  ;;
main)
  limit=$2
  shift 2
  timeout $((limit + 20)) python3 benchmarks/lab.py queue "$(first queue)" --variants "$(first variants)" --device cuda \
    --deadline "$limit" --out "$OUT/results.jsonl" "$@" 2>&1 | tee "$OUT/main.log"
  wc -l "$OUT/results.jsonl"
  ;;
esac
