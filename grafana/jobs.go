// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/deploy/prometheus/rules"
)

// batchJobs is the dashboard of the jobs of Slurm and other batch systems.
func batchJobs(n Names) page {
	owner := `user=~"$user", account=~"$account", partition=~"$partition"`
	byUsersSelector := and(ofRecords, owner)
	inJobs := and(byUsersSelector, `job_id=~"$batch_job"`)
	userKeys, byUser := ownerLabels(label{"cluster", "Cluster"}, label{"user", "User"}, label{"account", "Account"}, label{"partition", "Partition"})
	accountKeys, byAccount := ownerLabels(userKeys[0], userKeys[2])
	partitionKeys, byPartition := ownerLabels(userKeys[0], userKeys[3])
	jobKeys, byJob := ownerLabels(append([]label{userKeys[0], {"job_id", "Job"}, {"job_name", "Name"}}, append(userKeys[1:4:4], label{"source", "Source"})...)...)
	users := owners{userRecords(), byUser, byUsersSelector}
	accounts := owners{userRecords(), byAccount, byUsersSelector}
	partitions := owners{userRecords(), byPartition, byUsersSelector}
	jobOwners := owners{jobRecords(), byJob, inJobs}
	// A job has further labels as soon as the exporter knows them.
	byID := owners{jobRecords(), "cluster, source, job_id", inJobs}
	noJobs := "no batch job held a GPU, or " + noRules

	held := and(inFleet, owner+`, job_id=~"$batch_job"`)
	rows := e("max by (", deviceID, ", job_id, user) (", &definition.GPUJobInfo, held, ")")
	// onDevice restricts a value of devices to those that a job holds.
	onDevice := func(value string) string { return e("(", value, ") and on (", deviceID, ") ", rows) }
	busy := rateOf(deviceID, &definition.GPUBusySeconds, inFleet)
	toJob := link{"Job ${__data.fields.Job}", "jobs", [][2]string{{"batch_job", "${__data.fields.Job}"}}}
	toUser := link{"Jobs of ${__data.fields.User}", "jobs", [][2]string{{"user", "${__data.fields.User}"}}}

	return page{
		name:  "jobs",
		title: "Jobs",
		description: "GPUs by batch job, user, account and partition: held, busy and idle GPU hours, and energy, also of jobs that ended. " +
			"A shared GPU counts once.",
		rules: true, from: "now-24h",
		variables: []dashboard.VariableModel{clusters(), jobs(),
			batch("user", "user", "User", ""), batch("account", "account", "Account", `user=~"$user"`), batch("partition", "partition", "Partition", `user=~"$user", account=~"$account"`),
			batch("batch_job", "job_id", "Batch job", owner)},
		rows: []row{
			{title: "Selected jobs", panels: append(jobOwners.summary("batch job"),
				newStat("Jobs now", "Batch jobs that hold a GPU.", of("none", 0, noOwners).in(quantity),
					query{e("count(", byID.now(&rules.JobHeld), ")", noneNow()), "jobs"}).size(12, 4),
				newStat("Jobs that ended", "Batch jobs that held a GPU in the time range and are not reported to hold one now.", of("none", 0, noOwners).in(quantity),
					query{e("count((", byID.total(&rules.JobHeld), ") unless ", byID.now(&rules.JobHeld), ")", noneEver()), "jobs"}).size(12, 4))},
			{title: "Users and jobs", panels: []*panel{
				newTable("Users", aboutOwners+"The 100 users with the most idle hours. The user is a number, unless --slurm.user-names exports names.",
					userKeys, idleHours, users.columns()...).ifEmpty(noJobs).link(toUser),
				newTable("Jobs", aboutOwners+"The 100 jobs with the most idle hours. Run time is the time in which the job held a GPU.",
					jobKeys, idleHours, append(jobOwners.columns(),
						column{title: "Run time", expr: jobOwners.worst(100, e("max by (", byJob, ") (count_over_time(", &rules.JobHeld, inJobs, "[$__range])) * ", perEvaluation)),
							style: of("s", 0, ""), width: 95})...).ifEmpty(noJobs).link(toJob).size(24, 12),
			}},
			{title: "Over time", panels: users.overTime("user", "{{user}} {{account}} {{partition}} {{cluster}}")},
			{title: "Accounts and partitions", panels: []*panel{
				newTable("Accounts", aboutOwners+"The 100 accounts with the most idle hours.", accountKeys, idleHours, accounts.columns()...).ifEmpty(noJobs).size(24, 8),
				newTable("Partitions", aboutOwners+"The 100 partitions with the most idle hours.", partitionKeys, idleHours, partitions.columns()...).ifEmpty(noJobs).size(24, 8),
			}},
			{title: "GPUs of the jobs", panels: []*panel{
				newTable("GPUs now", "GPUs and GPU instances that the selected jobs hold now. Busy is the newest share of time.",
					append(gpuKeys(), label{"GPU_I_PROFILE", "Profile"}, label{"GPU_I_ID", "Instance"}), "Busy",
					column{expr: rows, labels: []label{{"job_id", "Job"}, {"user", "User"}}},
					column{title: "Busy", expr: onDevice(busy), style: ratioCell(), gauge: true},
					column{title: "Memory in use", expr: onDevice(n.MemoryUsed.By(deviceID, inFleet)), style: of("bytes", 1, "")},
					column{title: "Power of the GPU", expr: onDevice(n.Power.By(deviceID, inFleet)), style: of("watt", 0, "")},
				).least().ifEmpty("no batch job holds a GPU").link(rowToGPU(), rowToNode()).size(24, 10),
			}},
		},
	}
}

// batch selects values of a label of batch jobs.
func batch(name, label, title, matchers string) dashboard.VariableModel {
	selector := inFleet
	if matchers != "" {
		selector = and(inFleet, matchers)
	}
	return several(values(name, title, e("label_values(", &definition.GPUJobInfo, selector, ", ", label, ")")), ".*")
}
