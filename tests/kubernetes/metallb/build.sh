#!/bin/sh
# Builds the pinned MetalLB (controller, speaker) into a folder and puts its CRDs beside them, once: what people move to crier from.
# Usage: build.sh FOLDER. The version is that of go.mod beside this file.
set -eu
folder=${1:?usage: build.sh FOLDER}
cd "$(dirname "$0")"

# The CRDs come last, so that they are there only when all is.
[ ! -d "$folder/crds" ] || exit 0

echo "building MetalLB's controller and speaker: some minutes, once"
# Only what is downloaded has a folder.
go mod download go.universe.tf/metallb
module=$(go list -m -f '{{.Dir}}' go.universe.tf/metallb)
partial=$folder/.partial.$$
mkdir -p "$partial/crds"
trap 'rm -rf "$partial"' EXIT
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$partial/" go.universe.tf/metallb/controller go.universe.tf/metallb/speaker
for crd in "$module"/config/crd/bases/*.yaml; do
    # AS numbers reach beyond int32, and newer API servers refuse a maximum that the format cannot hold.
    sed 's/format: int32/format: int64/' "$crd" >"$partial/crds/${crd##*/}"
done
mv "$partial/controller" "$partial/speaker" "$folder/"
mv "$partial/crds" "$folder/crds"
