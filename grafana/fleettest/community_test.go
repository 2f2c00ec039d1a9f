// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"strings"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
)

// dashboard12239 is the queries of dashboard 12239 of grafana.com, "NVIDIA DCGM Exporter
// Dashboard", and of its variables.
var dashboard12239 = []string{
	`DCGM_FI_DEV_GPU_TEMP{instance=~"$instance", gpu=~"$gpu"}`,
	`avg(DCGM_FI_DEV_GPU_TEMP{instance=~"$instance", gpu=~"$gpu"})`,
	`DCGM_FI_DEV_POWER_USAGE{instance=~"$instance", gpu=~"$gpu"}`,
	`sum(DCGM_FI_DEV_POWER_USAGE{instance=~"$instance", gpu=~"$gpu"})`,
	`DCGM_FI_DEV_SM_CLOCK{instance=~"$instance", gpu=~"$gpu"} * 1000000`,
	`DCGM_FI_DEV_GPU_UTIL{instance=~"$instance", gpu=~"$gpu"}`,
	`DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{instance=~"$instance", gpu=~"$gpu"}`,
	`DCGM_FI_DEV_FB_USED{instance=~"$instance", gpu=~"$gpu"}`,
	`count by (instance) (DCGM_FI_DEV_GPU_TEMP)`,
	`count by (gpu) (DCGM_FI_DEV_GPU_TEMP)`,
}

// The most used dashboard of dcgm-exporter works with the exporter's page.
func TestDashboard12239(t *testing.T) {
	p, n := startPrometheus(t), newNode(t, "h100", 1, "h100x8")
	n.start(t)
	target := map[string]string{"job": "gpu_exporter", "instance": "h100:9400"}
	variables := strings.NewReplacer("$instance", target["instance"], "$gpu", "0|1|2|3|4|5|6|7")
	for _, query := range dashboard12239 {
		exportertest.Eventually(t, query+" returns data of every GPU", func() bool {
			at := time.Now().Truncate(time.Millisecond)
			var all []series
			for _, point := range n.scrape(t, time.Time{}).series {
				all = append(all, series{labelsOf(point, target), []sample{{at, point.value}}})
			}
			p.write(all)
			results, err := p.instant(variables.Replace(query), at)
			if err != nil {
				t.Fatal(err)
			}
			return len(results) == 8 || len(results) == 1 && !strings.HasPrefix(query, "DCGM") && !strings.HasPrefix(query, "count by (gpu)")
		})
	}
}
