// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package dcgmsim builds and steers a simulated GPU node: stand-ins, in C, for
// libdcgm.so.4 and libnvidia-ml.so.1 under their real names, and dcgmsimd, an
// engine of its own process as nv-hostengine is. Any dynamic user of those
// libraries runs on it unchanged. It must not be linked into the exporter, must
// not be loaded unless asked for, and imports nothing of ours.
//
// The simulated hardware (what is lost, how a GPU is split, which XIDs came,
// what a GPU has consumed) lives in one state file that every process shares,
// so it outlives any of them. What an engine knows (groups, watches, samples)
// dies with its process, as with the real one.
//
// # Environment
//
//	DCGMSIM_SCENARIO         built-in name or path of a scenario file; required to make a new node
//	DCGMSIM_STATE            path of the state file; unset: a node private to the process
//	DCGMSIM_CONTROL          path of the control socket, served by whichever engine starts last
//	DCGMSIM_CONNECT_TIMEOUT  of a standalone client, "5s" by default ("250ms", "1s")
//	DCGMSIM_CALL_TIMEOUT     of a standalone call, "60s" by default
//	DCGMSIM_KMSG             file to which the driver's lines on XIDs are appended, as records of /dev/kmsg
//	__DCGM_DBG_FILE, __DCGM_DBG_LVL  the engine's log, as with the real one
//
// # Scenarios
//
// Built in: see [Scenarios]. A file has one statement a line; "#" starts a
// comment. A mistake is reported as file:line and nothing starts.
//
//	seed 7                    before anything else: identities and loads derive from it
//	base h100x8               start from a built-in or another file; the first statement
//	driver 570.133.20         also: nvml VERSION, cuda 12.8
//	uptime 2h                 since when energy and byte totals count; default 1h
//	init 100ms per-gpu 60ms   how long an engine takes to start; default 0
//	timeout connect 5s        also: timeout call 60s
//	gpus none                 drops the GPUs so far
//	gpu MODEL [count N]       h100, a100-80, a100-40, t4, l4, gb200, or a model made here
//	gpu MODEL [id N] [minor N] [bus 00000000:18:00.0] [uuid U] [serial S] [numa N]
//	model big like h100       a model of one's own, then
//	model big fb_total_mib 143771  any attribute of struct node_model in src/node.h
//	profiling yes             profiling fields on every GPU, module or not; or no
//	switches 4 [gpu-ports yes|no] [trunks 20,16,16,20]  NVSwitches, after the GPUs that they join
//	cpus 2 cores 72           Grace CPUs, with so many cores each
//	at 30s COMMAND            a command at a time after the start
//	COMMAND                   any command below, carried out before the start
//
// # Commands
//
// One line in, one line out: "ok …" or "error: …". I is a DCGM GPU id, S that of
// an NVSwitch, P a port, all counted from 0; G and C
// number the instances of a GPU 0 to 6 in order of creation; CALL is the name
// of a C function of libdcgm or libnvidia-ml, "sampling" (the engine's reading
// of the driver), "mig-monitor" (listing the processes of all instances of a GPU
// at once, which NVML allows to some only), or a prefix with a final "*".
//
//	xid N gpu I [gi G | ci C] [count TIMES] [kmsg only|both|twice]
//	xid pace MS               an engine learns of one XID every so often; 0: of all at once
//	lose gpu I · return gpu I · detach gpu I · attach gpu I
//	mig gpu I LAYOUT          1g.10gb*7 · 3g.40gb+2g.20gb*2 · 3g.40gb/1c,2c · none · off
//	link gpu I|switch S port P down|up
//	link gpu I|switch S port P error replay|recovery|flit|crc|ecc N   so many more
//	switch S lost|back
//	sxid N switch S [port P] fatal|nonfatal
//	reason gpu I NAME on|off|auto   gpu_idle, clocks_setting, power_cap, hw_slowdown, sync_boost,
//	                          sw_thermal, hw_thermal, hw_power_brake, display_clocks
//	heat gpu I|switch S|cpu C DEGREES   above what the load explains
//	ecc gpu I sbe|dbe N [device|sram|l1|l2|register|texture|shared|cbu]   so many more
//	remap gpu I correctable|uncorrectable N · remap gpu I pending|failure 0|1
//	retire gpu I sbe|dbe N · retire gpu I pending 0|1
//	recovery gpu I none|reset|reboot|drain-p2p|drain-and-reset
//	fabric gpu I unsupported|not-started|in-progress|success|failure [CODE]
//	health gpu I|switch S|cpu C SYSTEM pass|warn|fail [CODE]   pcie, nvlink, memory, thermal, …
//	profiling gpu I|all frozen|zero|stalled [for-good]   until the next new watch, or until "ok"
//	profiling gpu I|all locked [CODE] · profiling gpu I|all ok
//	blank field F [gpu I|switch S|cpu C] · unblank field F [gpu I|switch S|cpu C]
//	set field F value V [gpu I|switch S|cpu C] · unset field F [gpu I|switch S|cpu C]
//	hang CALL · slow CALL MS · fail CALL CODE · crash CALL
//	clear [CALL]              the faults on CALL; without it all that was set above but counters and MIG
//	engine lost · engine back
//	load gpu I|all util PERCENT [mem PERCENT] · load gpu I idle|steady|bursty|training|bursts
//	process gpu I pid P [ci C] [name N] [memory MIB|unknown] [share PERCENT]
//	                    [graphics yes|also] [mps yes]
//	process gone pid P · process none [gpu I]
//	print stdout|stderr TEXT  by each engine
//	truth gpu I               the integrals and readings that everything shown derives from
//	truth link gpu I|switch S port P
//	state
//
// # NVLinks
//
// A link entity's id is that of dcgm_link_t: the parent's kind in the lowest 8
// bits, the port in the next 16, the parent's id in the highest 8. A GPU's links
// end at ports of the switches, spread as on a DGX H100: 5, 4, 4 and 5 of 18.
// Those ports show the same link from its other end; with "gpu-ports no" they
// are off, so that each link shows once. Trunks lead out of the node and carry a
// part of one GPU's traffic. No two links of a GPU carry the same.
//
//	dgx-h100  8 × 18 GPU links and 72 trunks: the 216 links of a DGX H100 on the NVLink network
//	gb200     a compute tray: 4 × 18 GPU links to switches elsewhere in the rack, 2 × 72 cores
//
// A file with "base h100x8" and "switches 4" is an HGX board that stands alone:
// 144 GPU links, and the 144 ports that they end at.
package dcgmsim
