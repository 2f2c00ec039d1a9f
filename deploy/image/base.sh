#!/bin/sh
# Copyright The gpu_exporter Authors
# SPDX-License-Identifier: Apache-2.0
#
# base.sh ARCH DIR collects the files of a base image without a shell from this Debian system, for
# machines without a registry. arm64 on amd64 needs libc6-arm64-cross.
set -eu
arch=$1 root=$2
case $arch in
amd64) triplet=x86_64-linux-gnu loader=/lib64/ld-linux-x86-64.so.2 ;;
arm64) triplet=aarch64-linux-gnu loader=/lib/ld-linux-aarch64.so.1 ;;
*) echo "error: base.sh: unknown architecture $arch: use amd64 or arm64" >&2; exit 1 ;;
esac
from=/lib/$triplet
[ "$(dpkg --print-architecture)" = "$arch" ] || from=/usr/$triplet/lib
install -d "$root/etc/ssl/certs" "$root/usr/lib/$triplet" "$root/usr/lib64"
install -d -m 1777 "$root/tmp"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
for lib in libc.so.6 libdl.so.2 libm.so.6 libpthread.so.0 libresolv.so.2 librt.so.1; do
	install -m 0755 "$from/$lib" "$root/usr/lib/$triplet/$lib"
done
install -m 0755 "$from/${loader##*/}" "$root/usr/$loader"
printf 'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || install -m 0644 -t "$root/etc/ssl/certs" /etc/ssl/certs/ca-certificates.crt
