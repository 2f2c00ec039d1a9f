// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// dialTimeout bounds the attempt to reach an engine that does not answer DCGM.
const dialTimeout = 3 * time.Second

// Paths below the root directory.
const (
	driverVersionFile = "proc/driver/nvidia/version"
	deviceFiles       = "dev/nvidia[0-9]*"
	pciDevices        = "sys/bus/pci/devices/*"
)

// driverVersion matches the version in the first line of the driver's version file, such as
// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sun Mar 30 …".
var driverVersion = regexp.MustCompile(`\b\d+\.\d+(\.\d+)*\b`)

// examineMachine reports the driver and the GPUs of this machine without DCGM. required is
// false if the GPUs are on another machine, or are known to work.
func (d *diagnosis) examineMachine(root string, required bool) {
	missing := owners.Noted
	if required {
		missing = owners.Broken
	}
	if version, err := os.ReadFile(filepath.Join(root, driverVersionFile)); err != nil {
		d.add("machine", "driver", missing, "NVIDIA's kernel module is not loaded: /"+driverVersionFile+" does not exist", "install and load NVIDIA's driver, if this machine has GPUs")
	} else {
		d.add("machine", "driver", owners.OK, "NVIDIA's kernel module "+string(driverVersion.Find(version))+" is loaded", "")
	}
	onBus := 0
	devices, _ := filepath.Glob(filepath.Join(root, pciDevices)) // the pattern is valid
	for _, device := range devices {
		if isGPU(device) {
			onBus++
		}
	}
	files, _ := filepath.Glob(filepath.Join(root, deviceFiles))
	switch text := fmt.Sprintf("GPUs of NVIDIA on the PCI bus: %d; device files /dev/nvidiaN: %d", onBus, len(files)); {
	case len(files) > 0:
		d.add("machine", "gpus", owners.OK, text, "")
	case onBus > 0:
		d.add("machine", "gpus", missing, text, "load the driver; in a container, use the NVIDIA runtime or mount the device files")
	default:
		d.add("machine", "gpus", missing, text, "run doctor on a machine with GPUs, or see a simulated one with --simulate=h100x8")
	}
}

// isGPU reports whether a directory of sysfs is a display controller (class 03) of NVIDIA.
func isGPU(device string) bool {
	vendor, err := os.ReadFile(filepath.Join(device, "vendor"))
	if err != nil || strings.TrimSpace(string(vendor)) != "0x10de" {
		return false
	}
	class, err := os.ReadFile(filepath.Join(device, "class"))
	return err == nil && strings.HasPrefix(string(class), "0x03")
}

// addFailure adds the reason why there is no sample. The library is broken only if it
// cannot be loaded.
func (d *diagnosis) addFailure(ctx context.Context, c config.Config, failure model.Failure, err error) {
	about, name := "engine", "embedded"
	if c.Hostengine != "" {
		name = c.Hostengine
	}
	switch failure.Reason {
	case model.FailureLibraryMissing, model.FailureSymbolMissing:
		d.add("library", "libdcgm.so.4", owners.Broken, err.Error(), "")
	case model.FailureHostengineUnreached:
		d.add(about, name, owners.Broken, "does not answer: "+reach(ctx, c.Hostengine), "start nv-hostengine there, or correct the address")
	default:
		d.add(about, name, owners.Broken, err.Error(), "")
	}
}

// reach connects to the address of an engine that DCGM did not reach, and returns the
// reason. DCGM has one error for all.
func reach(ctx context.Context, address string) string {
	engine, err := wire.ParseHostengine(address)
	if err != nil {
		return err.Error()
	}
	network := "tcp"
	switch {
	case engine.URI:
		return "no connection through vsock"
	case engine.Unix:
		network = "unix"
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, engine.Target)
	if err != nil {
		return err.Error()
	}
	_ = conn.Close()
	return "a program accepts connections, but it is not nv-hostengine of DCGM 4"
}
