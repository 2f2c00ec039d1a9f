#!/bin/bash
# Copyright The gpu_exporter Authors
# SPDX-License-Identifier: Apache-2.0
#
# release.sh writes the files of a release to OUT. `make release` runs it; README.md describes the
# variables. Equal sources, VERSION, REVISION, SOURCE_DATE_EPOCH and compilers give equal bytes.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${VERSION:?}" "${REVISION:?}" "${SOURCE_DATE_EPOCH:?}" "${TOOLS:?}" "${OUT:?}" "${ARCHS:=amd64 arm64}" "${SIGN_KEY:=}" "${IMAGES:=}"
[[ $VERSION =~ ^[0-9]+\.[0-9]+\.[0-9]+([-.][0-9A-Za-z.]+)?$ ]] || {
	echo "error: VERSION=$VERSION: use a semantic version without v, such as 0.1.0" >&2
	exit 1
}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC GOFLAGS="${GOFLAGS:-} -buildvcs=false"
# make, which runs this script, passes its variables down.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES
umask 022
note() { echo "release: $*"; }

rm -rf "$OUT"
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# archive NAME DIRECTORY archives a directory of $work, without the times, owners and order of files.
archive() {
	chmod -R u=rwX,go=rX "$work/$2"
	tar -C "$work" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$2" | gzip -9n >"$OUT/$1.tar.gz"
}

# run ARCH PROGRAM ARGUMENTS… runs a program of an architecture. The exporter starts itself as the
# sampler, so the kernel must start qemu: in a user namespace, which changes no setting of the machine.
run() {
	local arch=$1
	shift
	if [ "$arch" = "$(go env GOHOSTARCH)" ]; then
		"$@"
		return
	fi
	local conf=/usr/lib/binfmt.d/qemu-aarch64.conf qemu=/usr/bin/qemu-aarch64-static libraries=/usr/aarch64-linux-gnu
	[ "$arch" = arm64 ] && [ -e $conf ] && [ -e $qemu ] && [ -e $libraries/lib/ld-linux-aarch64.so.1 ] || return 125
	# Flag F opens qemu here, O and P are for the packaged wrapper.
	QEMU_LD_PREFIX=$libraries unshare -Urm sh -c '
		mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || exit 125
		sed "s|:[^:]*:[A-Z]*\$|:$1:F|" "$2" >/proc/sys/fs/binfmt_misc/register || exit 125
		shift 2
		exec "$@"' sh $qemu $conf "$@"
}

for arch in $ARCHS; do
	files=$work/files/$arch
	make -s --no-print-directory release-files ARCH="$arch" VERSION="$VERSION" REVISION="$REVISION" OUT="$files"
	dir=gpu_exporter-$VERSION.linux-$arch
	mkdir -p "$work/$dir"
	cp -r "$files/gpu_exporter" LICENSE CHANGELOG.md "$work/$dir"
	mkdir "$work/$dir/etc"
	cp etc/*.csv etc/*.yaml "$work/$dir/etc"
	archive "$dir" "$dir"
	(cd "$work" && "$TOOLS/cyclonedx-gomod" bin -json -std -noserial -notimestamp -version "$VERSION" -output "$OUT/$dir.cdx.json" "$dir/gpu_exporter") 2>/dev/null
	# The stand-ins are for tests and demonstrations. Unpacked at the same place, --simulate finds them.
	rm -rf "${work:?}/$dir"
	mkdir -p "$work/$dir"
	cp -r "$files/sim" "$work/$dir"
	archive "gpu_exporter-sim-$VERSION.linux-$arch" "$dir"
	run "$arch" "$files/gpu_exporter" once --simulate=h100x8 >"$work/page" 2>"$work/log" && status=0 || status=$?
	gpus=$(grep -c '^gpu_up{.*} 1$' "$work/page") || true
	if [ $status -eq 125 ]; then
		note "$arch: NOT RUN: needs qemu-user-static, libc6-arm64-cross and user namespaces: $(cat "$work/log")"
	elif [ $status -ne 0 ] || [ "$gpus" != 8 ]; then
		note "error: $arch: the binary reads $gpus simulated GPUs, want 8: $(tail -n 3 "$work/log")" >&2
		exit 1
	else
		note "$arch: the binary reads 8 simulated GPUs"
	fi
done

mkdir -p "$work/gpu_exporter-rules-$VERSION" "$work/gpu_exporter-dashboards-$VERSION"
cp -r deploy/prometheus/{recording.yaml,alerts.yaml,README.md,examples,runbooks} "$work/gpu_exporter-rules-$VERSION"
archive "gpu_exporter-rules-$VERSION" "gpu_exporter-rules-$VERSION"
cp -r grafana/dashboards grafana/dashboards-dcgm-4.9 "$work/gpu_exporter-dashboards-$VERSION"
archive "gpu_exporter-dashboards-$VERSION" "gpu_exporter-dashboards-$VERSION"

OUT=$OUT make -s --no-print-directory packages TOOLS="$TOOLS" VERSION="$VERSION" REVISION="$REVISION" PACKAGE_VERSION="${VERSION//-/\~}" ARCHS="$ARCHS"

grep -qx "version: $VERSION" deploy/helm/gpu-exporter/Chart.yaml || note "chart: packaged as $VERSION, Chart.yaml has another version"
"$TOOLS/helm4" package deploy/helm/gpu-exporter --version "$VERSION" --app-version "$VERSION" -d "$work" >/dev/null
tar -C "$work" -xzf "$work/gpu-exporter-$VERSION.tgz" # helm's archive contains times
archive "gpu-exporter-$VERSION" gpu-exporter
mv "$OUT/gpu-exporter-$VERSION.tar.gz" "$OUT/gpu-exporter-$VERSION.tgz"

for image in $IMAGES; do
	name=$(basename "$image")
	cp "$image" "$OUT/$name"
	"$TOOLS/syft" -q "oci-archive:$image" --source-name gpu_exporter --source-version "$VERSION" -o cyclonedx-json |
		sed -E 's/"serialNumber": ?"[^"]*", ?//; s/"timestamp": ?"[^"]*"/"timestamp":"'"$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)"'"/' >"$OUT/${name%.tar}.cdx.json"
done
[ -n "$IMAGES" ] || note "images: MISSING: set IMAGES to archives that make image wrote"

"$TOOLS/govulncheck" ./cmd/gpu_exporter >"$work/log" 2>&1 && status=0 || status=$?
if [ $status -eq 0 ]; then
	note "govulncheck: no vulnerabilities"
elif [ $status -eq 3 ]; then
	cat "$work/log" >&2
	note "error: govulncheck found vulnerabilities" >&2
	exit 1
elif grep -qE 'fetching vulnerabilities|vuln\.go\.dev' "$work/log"; then
	note "govulncheck: NOT CHECKED: its database https://vuln.go.dev is unreachable"
else
	cat "$work/log" >&2
	note "error: govulncheck failed" >&2
	exit 1
fi

(cd "$OUT" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
if [ -n "$SIGN_KEY" ]; then
	"$TOOLS/minisign" -S -s "$SIGN_KEY" -m "$OUT/SHA256SUMS" -c "signature of gpu_exporter $VERSION" -t "gpu_exporter $VERSION"
else
	note "signature: MISSING: set SIGN_KEY to a minisign key"
fi
note "wrote $(find "$OUT" -type f | wc -l) files to $OUT"
