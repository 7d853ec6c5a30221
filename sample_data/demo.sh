#!/bin/sh
# The tour that `make demo` runs: every command is printed before what it says.
set -eu
KVQ=${KVQ:-kvq}
case $KVQ in */*) KVQ=$(cd "$(dirname "$KVQ")" && pwd)/$(basename "$KVQ") ;; esac
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
cp -R "$here/smollm2-sample-4x3x96x64-f16.safetensors" "$here/profiles" "$folder"
cd "$folder"
mv smollm2-sample-4x3x96x64-f16.safetensors cache.safetensors

say() { printf '\n# %s\n' "$*"; }
run() {
    printf '$ %s\n' "$*"
    if [ "$1" = kvq ]; then
        shift
        "$KVQ" "$@"
    else
        "$@"
    fi
}

say "A real KV cache: 4 layers of SmolLM2-135M over 96 tokens of Jane Austen."
run kvq inspect cache.safetensors
say "Without a profile nothing is lost."
run kvq compress cache.safetensors
run kvq verify cache.safetensors.kvq
run kvq decompress cache.safetensors.kvq -o restored.safetensors
run cmp cache.safetensors restored.safetensors
printf 'restored.safetensors is cache.safetensors, byte for byte\n'
say "int8, the first 4 tokens kept raw. Losing information is always your explicit word."
run kvq compress cache.safetensors --profile profiles/demo-int8.json -o cache.int8.kvq
run kvq verify cache.int8.kvq --profile profiles/demo-int8.json --min-ratio 1.8
run kvq inspect cache.int8.kvq
say "What it cost, measured against the capture."
run kvq stats cache.int8.kvq --against cache.safetensors
run kvq decompress cache.int8.kvq --layers 0 --tokens 0:8 --dtype f32 -o slice.safetensors

lossless=$(wc -c < cache.safetensors.kvq)
int8=$(wc -c < cache.int8.kvq)
source=$(wc -c < cache.safetensors)
say "In short"
printf 'capture %s bytes; lossless %s bytes, byte-identical when restored;\n' \
    "$((source))" "$((lossless))"
printf 'int8 %s bytes; every bit of both under a digest.\n' "$((int8))"
printf 'Next: kvq compress YOUR.safetensors, or kvq stats YOUR.safetensors --profile int8\n'
