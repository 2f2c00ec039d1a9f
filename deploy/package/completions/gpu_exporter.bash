# Copyright The gpu_exporter Authors
# SPDX-License-Identifier: Apache-2.0
# Written by `make docs`: change the code, not this file.
_gpu_exporter() {
	local cur=${COMP_WORDS[COMP_CWORD]} words='serve once check-config doctor fields ready'
	case $cur in
	-*) words='--all --output= --entity= --type= --node --help --version --config.file= --families= --hostname= --sample.interval= --sample.resolution= --sample.histograms --sample.max-age= --counters.file= --counters.config-map= --devices.gpus= --devices.allow-none --devices.switches= --devices.cpus= --dcgm.log --dcgm.log-level= --xid.catalogue= --xid.last-zero --xid.window= --clock-events.window= --health.enabled --health.interval= --label.hostname= --label.old-names --label.replace-blanks --label.nvlink-index= --simulate= --dcgm.hostengine= --dcgm.library-path= --xid.kernel-log= --kubernetes.enabled --kubernetes.gpu-id-type= --kubernetes.pod-resources-socket= --kubernetes.resource-names= --kubernetes.repeat-shared --kubernetes.pod-usage --kubernetes.dra --kubernetes.pod-labels --kubernetes.pod-label-allowlist= --kubernetes.pod-annotation-allowlist= --kubernetes.pod-labels-form= --kubernetes.pod-uid --kubernetes.workload --kubernetes.metadata-source= --kubernetes.pods-socket= --kubernetes.kubeconfig= --kubernetes.node-name= --slurm.jobs= --slurm.user-names --jobs.directory= --docker.socket= --docker.label-allowlist= --path.kmsg= --path.pod-logs= --path.procfs= --path.cgroupfs= --web.listen-address= --web.systemd-socket --web.config.file= --web.max-requests= --web.status-page --web.enable-admin-api --web.enable-pprof --log.level= --log.format=' ;;
	=) return ;; # a value: of those that are files, bash completes the names
	esac
	[[ ${COMP_WORDS[COMP_CWORD-1]} != = ]] || return
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
}
complete -o default -F _gpu_exporter gpu_exporter
