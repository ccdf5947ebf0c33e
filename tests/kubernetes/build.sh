#!/bin/sh
# Builds the pinned control plane (etcd, kube-apiserver, kube-controller-manager, kube-proxy, kubectl) into a folder, once.
# Usage: build.sh FOLDER. The versions are those of go.mod beside this file.
set -eu
folder=${1:?usage: build.sh FOLDER}
cd "$(dirname "$0")"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
mkdir -p "$folder"
build() {
    name=$1 package=$2
    [ -x "$folder/$name" ] && return 0
    echo "building $name ($package)"
    CGO_ENABLED=0 go build -trimpath \
        -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
        -o "$folder/.$name.partial" "$package"
    mv "$folder/.$name.partial" "$folder/$name"
}
build etcd go.etcd.io/etcd/server/v3
for name in kube-apiserver kube-controller-manager kube-proxy kubectl; do
    build "$name" "k8s.io/kubernetes/cmd/$name"
done
