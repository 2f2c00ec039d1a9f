#!/bin/sh
# Arguments of dpkg: remove, upgrade or deconfigure. Of rpm: 0 for a removal, 1 for an upgrade.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
systemctl --no-reload disable gpu_exporter.service
[ ! -d /run/systemd/system ] || systemctl stop gpu_exporter.service
