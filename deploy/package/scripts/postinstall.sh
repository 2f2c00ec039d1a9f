#!/bin/sh
# Arguments of dpkg: configure [OLD-VERSION], or abort-*. Of rpm: 1 for the first
# installation, 2 for an upgrade.
set -e
case "$1" in
configure | [0-9]*) ;;
*) exit 0 ;;
esac
systemd-sysusers gpu_exporter.conf
first=
case "$1 ${2-}" in
'configure ' | '1 ') first=yes ;;
esac
# A site can disable the unit with a preset of its own.
[ -z "$first" ] || systemctl --no-reload preset gpu_exporter.service
[ -d /run/systemd/system ] || exit 0 # an image is being built
systemctl daemon-reload
if [ -z "$first" ]; then
	systemctl try-restart gpu_exporter.service
elif systemctl --quiet is-enabled gpu_exporter.service; then
	systemctl start gpu_exporter.service || echo "gpu_exporter does not start: see journalctl -u gpu_exporter" >&2
fi
