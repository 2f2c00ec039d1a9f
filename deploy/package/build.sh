#!/bin/sh
# Copyright The gpu_exporter Authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds the deb and rpm packages for the architectures in ARCHS into OUT. Equal sources give
# equal bytes: no file has a time but that of the commit.
set -eu
cd "$(dirname "$0")/../.."
: "${OUT:=build/packages}" "${ARCHS:=amd64 arm64}" "${NFPM:?}" "${VERSION:?}" "${REVISION:?}" "${PACKAGE_VERSION:?}" "${MAINTAINER:?}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
# The newest symbol version of the C library that the programs need. A test compares it.
GLIBC=2.34
export SOURCE_DATE_EPOCH PACKAGE_VERSION MAINTAINER GLIBC
umask 022
mkdir -p "$OUT" build/packages
rm -f "$OUT"/*.deb "$OUT"/*.rpm

gzip -9nc deploy/package/gpu_exporter.1 >build/packages/gpu_exporter.1.gz
gzip -9nc CHANGELOG.md >build/packages/changelog.gz
printf '%s\n\n%s\n\n -- %s  %s\n' "gpu-exporter ($PACKAGE_VERSION-1) unstable; urgency=medium" "  * changelog.gz lists the changes." \
	"$MAINTAINER" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9nc >build/packages/changelog.Debian.gz

for ARCH in $ARCHS; do
	export ARCH
	case $ARCH in
	amd64) cpu=x86-64 ;;
	arm64) cpu=aarch64 ;;
	*) echo "ARCHS: $ARCH is unknown: use amd64 or arm64" >&2 && exit 1 ;;
	esac
	command -v "$(echo $cpu | tr - _)-linux-gnu-gcc" >/dev/null || { echo "the C compiler for $ARCH is missing: install gcc-$cpu-linux-gnu, or set ARCHS=$(go env GOHOSTARCH)" >&2 && exit 1; }
	make -s --no-print-directory release-files ARCH="$ARCH" VERSION="$VERSION" REVISION="$REVISION" OUT="$PWD/build/packages/$ARCH"
	for config in nfpm nfpm-sim; do
		"$NFPM" package --config deploy/package/$config.yaml --packager deb --target "$OUT/"
		"$NFPM" package --config deploy/package/$config.yaml --packager rpm --target "$OUT/"
	done
done
