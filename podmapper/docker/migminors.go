// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// DefaultMIGMinors is where the driver says what its device files for MIG are,
// /dev/nvidia-caps/nvidia-capN.
const DefaultMIGMinors = "/proc/driver/nvidia-caps/mig-minors"

// migMinors says what a nvidia-capN is the access to, by N. The list has all
// instances that there could be, so it does not change with the MIG layout.
type migMinors map[int]migAccess

// migAccess is a GPU instance, or a compute instance in one. A program needs the
// files of both.
type migAccess struct {
	MIGInstance
	compute bool
}

// maxMinorsBytes bounds the file. It has about 32 × 15 × 9 lines.
const maxMinorsBytes = 1 << 20

func readMIGMinors(path string) (migMinors, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMIGMinors(io.LimitReader(f, maxMinorsBytes))
}

// parseMIGMinors reads lines such as "gpu0/gi1/access 12" and "gpu0/gi1/ci0/access
// 13"; see "Device Nodes and Capabilities" in NVIDIA's MIG user guide. The
// number after gpu is the minor number of the GPU. Others, such as "config 1",
// are no instances.
func parseMIGMinors(r io.Reader) (migMinors, error) {
	all := make(migMinors)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, minor, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(minor)
		if !ok || err != nil || n < 0 {
			continue
		}
		parts := strings.Split(name, "/")
		if len(parts) < 3 || len(parts) > 4 || parts[len(parts)-1] != "access" {
			continue
		}
		var a migAccess
		a.compute = len(parts) == 4
		ok = number(parts[0], "gpu", &a.Minor) && number(parts[1], "gi", &a.GPUInstance)
		if a.compute {
			ok = ok && number(parts[2], "ci", &a.ComputeInstance)
		}
		if ok {
			all[n] = a
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no instances in it")
	}
	return all, nil
}

// number takes a text such as gi12 apart.
func number(text, prefix string, n *int) bool {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return false
	}
	v, err := strconv.ParseUint(digits, 10, 16)
	*n = int(v)
	return err == nil
}
