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
//	gpu MODEL [count N]       h100, a100-80, a100-40, t4, l4, or a model made here
//	gpu MODEL [id N] [minor N] [bus 00000000:18:00.0] [uuid U] [serial S] [numa N]
//	model big like h100       a model of one's own, then
//	model big fb_total_mib 143771  any attribute of struct node_model in src/node.h
//	profiling yes             profiling fields on every GPU, module or not; or no
//	at 30s COMMAND            a command at a time after the start
//	COMMAND                   any command below, carried out before the start
//
// # Commands
//
// One line in, one line out: "ok …" or "error: …". I is a DCGM GPU id; G and C
// number the instances of a GPU 0 to 6 in order of creation; CALL is the name
// of a C function of libdcgm or libnvidia-ml, "sampling" (the engine's reading
// of the driver), "mig-monitor" (listing the processes of all instances of a GPU
// at once, which NVML allows to some only), or a prefix with a final "*".
//
//	xid N gpu I [gi G | ci C]
//	lose gpu I · return gpu I · detach gpu I · attach gpu I
//	mig gpu I LAYOUT          1g.10gb*7 · 3g.40gb+2g.20gb*2 · 3g.40gb/1c,2c · none · off
//	blank field F [gpu I] · unblank field F [gpu I]
//	set field F value V [gpu I] · unset field F [gpu I]
//	hang CALL · slow CALL MS · fail CALL CODE · crash CALL
//	clear [CALL]              the faults on CALL; without it faults, overrides, lost GPUs and engine
//	engine lost · engine back
//	load gpu I|all util PERCENT [mem PERCENT] · load gpu I idle|steady|bursty|training
//	process gpu I pid P [ci C] [name N] [memory MIB|unknown] [share PERCENT]
//	                    [graphics yes|also] [mps yes]
//	process gone pid P · process none [gpu I]
//	print stdout|stderr TEXT  by each engine
//	truth gpu I               the integrals and readings that everything shown derives from
//	state
package dcgmsim
