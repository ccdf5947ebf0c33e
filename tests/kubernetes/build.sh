#!/bin/sh
# Builds the pinned control plane (etcd, kube-apiserver, kube-controller-manager, kube-proxy, kubectl) into a folder, once.
# Usage: build.sh FOLDER. The versions are those of go.mod beside this file.
set -eu
folder=${1:?usage: build.sh FOLDER}
cd "$(dirname "$0")"

missing=
for name in etcd kube-apiserver kube-controller-manager kube-proxy kubectl; do
    [ -x "$folder/$name" ] || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

echo "building$missing: some minutes, once"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
partial=$folder/.partial.$$
mkdir -p "$partial"
trap 'rm -rf "$partial"' EXIT
build() {
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$@"
}
packages=
for name in $missing; do
    case $name in
    # Its package has another name than its binary.
    etcd) build "$partial/etcd" go.etcd.io/etcd/server/v3 ;;
    *) packages="$packages k8s.io/kubernetes/cmd/$name" ;;
    esac
done
# All in one go, so that no core waits for another program's link.
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || build "$partial/" $packages
for name in $missing; do
    mv "$partial/$name" "$folder/$name"
done
