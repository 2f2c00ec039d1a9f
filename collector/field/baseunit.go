// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"slices"

	"gpu_exporter/collector/model"
)

// baseUnit is a name of a field in base units. DCGM 4.6.1 and 4.7 have separate fields for
// these names, which older engines do not support. The exporter converts the values of
// the older field instead, so that the name works with every DCGM 4.
type baseUnit struct {
	name  string
	field model.FieldID // the older field
	scale float64       // from the older field's unit to the base unit
	help  string
}

const (
	mega = 1e6
	mebi = 1 << 20
	// nvlinkUnit is DCGM's "MB/s" of NVLinks: KiB/s divided by 1000
	// (dcgmlib/src/DcgmCacheManager.cpp, ReadAndCacheNvLinkBandwidth).
	nvlinkUnit = 1000 * 1024
)

// baseUnits are the names of DCGM 4.6.1 (IDs 1600 to 1612; go-dcgm v1.4611.0) and of 4.7
// (1613 to 1616, 1625 to 1628 and 1648). Source: "Field Identifiers" and "DCGM Exporter
// Metrics" in NVIDIA's DCGM documentation. go-dcgm v1.4611.0 resolves
// DCGM_FI_DEV_GPU_UTIL_RATIO to field 203, in percent. In DCGM 4.7 and dcgm-exporter 4.9 it
// is a ratio.
var baseUnits = []baseUnit{
	{"DCGM_FI_DEV_BAR1_CAPACITY_BYTES", 90, mebi, "BAR1 memory in total (in bytes)."},
	{"DCGM_FI_DEV_BAR1_USED_BYTES", 92, mebi, "BAR1 memory in use (in bytes)."},
	{"DCGM_FI_DEV_BAR1_FREE_BYTES", 93, mebi, "BAR1 memory free (in bytes)."},
	{"DCGM_FI_DEV_SM_CLOCK_HERTZ", 100, mega, "Clock of the streaming multiprocessors (in Hz)."},
	{"DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", 101, mega, "Clock of the memory (in Hz)."},
	{"DCGM_FI_DEV_VIDEO_CLOCK_HERTZ", 102, mega, "Clock of the video engines (in Hz)."},
	{"DCGM_FI_DEV_SM_APP_CLOCK_HERTZ", 110, mega, "Application clock set for the streaming multiprocessors (in Hz)."},
	{"DCGM_FI_DEV_MEMORY_APP_CLOCK_HERTZ", 111, mega, "Application clock set for the memory (in Hz)."},
	{"DCGM_FI_DEV_SM_MAX_CLOCK_HERTZ", 113, mega, "Highest clock of the streaming multiprocessors (in Hz)."},
	{"DCGM_FI_DEV_MEMORY_MAX_CLOCK_HERTZ", 114, mega, "Highest clock of the memory (in Hz)."},
	{"DCGM_FI_DEV_VIDEO_MAX_CLOCK_HERTZ", 115, mega, "Highest clock of the video engines (in Hz)."},
	{"DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 156, 1e-3, "Energy consumed since the driver was loaded (in J)."},
	{"DCGM_FI_DEV_FAN_SPEED_RATIO", 191, Percent, "Fan speed relative to the maximum at tolerable noise (ratio)."},
	{"DCGM_FI_DEV_GPU_UTIL_RATIO", 203, Percent, "Time in which a kernel ran on the GPU (ratio)."},
	{"DCGM_FI_DEV_MEMORY_UTIL_RATIO", 204, Percent, "Time in which memory was read or written (ratio)."},
	{"DCGM_FI_DEV_ENC_UTIL_RATIO", 206, Percent, "Time in which the video encoder was busy (ratio)."},
	{"DCGM_FI_DEV_DEC_UTIL_RATIO", 207, Percent, "Time in which the video decoder was busy (ratio)."},
	{"DCGM_FI_DEV_FB_CAPACITY_BYTES", 250, mebi, "Framebuffer memory in total (in bytes)."},
	{"DCGM_FI_DEV_FB_FREE_BYTES", 251, mebi, "Framebuffer memory free (in bytes)."},
	{"DCGM_FI_DEV_FB_USED_BYTES", 252, mebi, "Framebuffer memory in use (in bytes)."},
	{"DCGM_FI_DEV_FB_RESERVED_BYTES", 253, mebi, "Framebuffer memory that driver and firmware keep for themselves (in bytes)."},
	{"DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND", 449, nvlinkUnit, "Data sent and received over all NVLinks (in bytes/s)."},
}

func findBaseUnit(match func(baseUnit) bool) (baseUnit, bool) {
	if i := slices.IndexFunc(baseUnits, match); i >= 0 {
		return baseUnits[i], true
	}
	return baseUnit{}, false
}

// BaseUnitName returns the name that selects the field in base units, or "".
func (f Field) BaseUnitName() string {
	unit, _ := findBaseUnit(func(u baseUnit) bool { return u.field == f.ID })
	return unit.name
}

// DCGMName returns a name that selects the field in DCGM's own unit.
func (f Field) DCGMName() string {
	if legacy := f.Legacy(); len(legacy) > 0 && f.BaseUnitName() == f.Name {
		return legacy[0]
	}
	return f.Name
}

// Percent is the factor from percent to a ratio.
const Percent = 0.01
