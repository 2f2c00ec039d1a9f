// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import "gpu_exporter/podmapper/device"

// Names of package device that importers still use under this package. To be
// deleted when they import device.
type (
	Device          = device.Device
	DeviceKind      = device.Kind
	DeviceID        = device.ID
	Published       = device.Published
	PublishedName   = device.PublishedName
	PublishedDevice = device.PublishedDevice
	IDType          = device.IDType
)

// See package device.
const (
	KindOther           = device.KindOther
	KindGPU             = device.KindGPU
	KindGPUInstance     = device.KindGPUInstance
	KindComputeInstance = device.KindComputeInstance
	NotPublished        = device.Unknown
	FormUnknown         = device.FormUnknown
	FormNumber          = device.FormNumber
	FormDeviceName      = device.FormDeviceName
	FormGPUUUID         = device.FormGPUUUID
	FormMIGUUID         = device.FormMIGUUID
	FormMIGPath         = device.FormMIGPath
)

// ParseIDType is device.ParseIDType.
func ParseIDType(s string) (IDType, error) { return device.ParseIDType(s) }

// ParseDeviceID is device.ParseID.
func ParseDeviceID(s string) (DeviceID, string) { return device.ParseID(s) }
