// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

// Claim says by which ResourceClaim (DRA) a container holds a device, as the
// kubelet's pod-resources API lists it. The zero value is a device that no claim
// gave: it came from a device plugin.
type Claim struct {
	Namespace, Name string // of the ResourceClaim
	PublishedName          // of the device
	// Share tells the shares of one device apart; empty for a whole device.
	Share string
	// MIGProfile and MIGUUID are those of the MIG device that the claim gave. Only
	// Match, which knows the device, fills them in.
	MIGProfile, MIGUUID string
}

// PublishedName names a device in ResourceSlices. It is unique in the cluster.
type PublishedName struct{ Driver, Pool, Device string }

// String gives the three parts, with slashes between them.
func (n PublishedName) String() string { return n.Driver + "/" + n.Pool + "/" + n.Device }

// PublishedDevice is what a ResourceSlice says of a device. Texts are empty, and
// numbers NotPublished, where it says nothing.
type PublishedDevice struct {
	Type       string // gpu, mig, or the driver's own word
	UUID       string // GPU-… or MIG-…
	ParentUUID string // of the GPU around a MIG device
	Profile    string // of a MIG device, such as 1g.10gb
	// PlacementStart is the first memory slice of a MIG device in its GPU. With
	// the profile it tells the instances of one GPU apart, also those that were
	// made for a claim and whose UUID no slice has.
	PlacementStart int
	Index, Minor   int    // of the GPU itself, as NVML counts
	PCIBusID       string // of the GPU, in any spelling that the driver uses
}

// NotPublished is the value of a number that no slice says.
const NotPublished = -1

// Published is what the ResourceSlices of this node say. It is immutable; a nil
// Published knows of no device.
type Published struct {
	Version uint64 // changes exactly when Devices does
	Devices map[PublishedName]PublishedDevice
}
