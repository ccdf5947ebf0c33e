#!/bin/sh
# Builds the pinned Traefik, which serves Ingresses and Gateways, into a folder and puts the CRDs of the Gateway API beside it, once.
# Usage: build.sh FOLDER. The version is that of go.mod beside this file. Two parts of it are stand-ins: what they say they leave out.
set -eu
folder=${1:?usage: build.sh FOLDER}
cd "$(dirname "$0")"

# The CRDs come last, so that they are there only when all is.
[ ! -d "$folder/crds" ] || exit 0

echo "building Traefik: some minutes, once"
partial=$folder/.partial.$$
mkdir -p "$partial/source" "$partial/crds"
trap 'chmod -R u+w "$partial"; rm -rf "$partial"' EXIT
cp -r go.mod go.sum stand-ins "$partial/source/"
cd "$partial/source"

# Only what is downloaded has a folder.
go mod download github.com/go-acme/lego/v5 sigs.k8s.io/gateway-api
lego=$(go list -m -f '{{.Dir}}' github.com/go-acme/lego/v5)
for crd in "$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)"/config/crd/standard/gateway.*.yaml; do
    # A policy against downgrades is no CRD.
    ! grep -q '^kind: CustomResourceDefinition$' "$crd" || cp "$crd" "$partial/crds/"
done
cp -r "$lego" lego
chmod -R u+w lego
cp stand-ins/lego/zz_gen_dns_providers.go lego/providers/dns/
go mod edit -replace github.com/go-acme/lego/v5=./lego
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$partial/" github.com/traefik/traefik/v3/cmd/traefik
mv "$partial/traefik" "$folder/"
mv "$partial/crds" "$folder/crds"
