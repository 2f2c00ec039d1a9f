// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package dcgmsim builds and steers a simulated GPU node.
//
// The C sources in src implement stand-ins for libdcgm.so.4 and
// libnvidia-ml.so.1 under their real SONAMEs, and dcgmsimd, an engine in its own
// process as nv-hostengine is. Programs that load these libraries run on the
// stand-ins unchanged. The package must not be linked into the exporter, its
// libraries must not be loaded unless requested, and it imports no other package
// of this module.
//
// The simulated hardware is one state file that all processes share: lost GPUs,
// MIG layouts, XIDs, energy totals. It outlives each process. The state of an
// engine (groups, watches, samples) ends with the engine's process, as with the
// real one.
//
// # Environment
//
//	DCGMSIM_SCENARIO         built-in name or path of a scenario file; required to create a node
//	DCGMSIM_STATE            path of the state file; not set: a node private to the process
//	DCGMSIM_CONTROL          path of the control socket; the engine that started last serves it
//	DCGMSIM_CONNECT_TIMEOUT  time limit of a standalone connection, such as 250ms; default 5s
//	DCGMSIM_CALL_TIMEOUT     time limit of a standalone call; default 60s
//	DCGMSIM_KMSG             file to which the driver's XID messages are appended, as records of /dev/kmsg
//	__DCGM_DBG_FILE, __DCGM_DBG_LVL  the engine's log, as with the real engine
//
// # Scenario files
//
// [Scenarios] lists the built-in scenarios. A scenario file has one statement
// per line; "#" starts a comment. An error is reported as FILE:LINE, and no node
// is created. The statements, as listed by dcgmsimd --help:
//
//	seed NUMBER                                   set what identities and loads derive from; the first statement
//	base NAME|PATH                                start from a built-in scenario or a different file; the first statement after seed
//	driver VERSION                                set the driver version
//	nvml VERSION                                  set the NVML version
//	cuda VERSION                                  set the CUDA version
//	uptime DURATION                               set the time since boot, for which energy and bytes count; default 1h
//	init DURATION [per-gpu DURATION]              set how long an engine takes to start; default 0s
//	timeout connect|call DURATION                 set the time limits of a standalone client; defaults 5s and 60s
//	gpus none                                     remove the GPUs and switches defined so far
//	gpu MODEL [count N]                           add N GPUs of a model
//	gpu MODEL [id N] [minor N] [bus 00000000:18:00.0] [uuid U] [serial S] [numa N]  add one GPU
//	model NAME like MODEL                         define a model as a copy of another
//	model NAME ATTRIBUTE VALUE                    set an attribute of a model: a member of struct node_model in src/node/node.h
//	profiling yes|no                              set whether profiling fields work on the GPUs and models defined so far
//	switches N [gpu-ports yes|no] [trunks N,N,…]  connect the GPUs to NVSwitches; trunks lead out of the node
//	cpus N cores N                                add Grace CPUs with N cores each
//	at DURATION COMMAND                           run a command at a time after the start
//	COMMAND                                       run a command while the node is created
//
// The models are h100, a100-80, a100-40, t4, l4, gb200, and those that the file
// defines. Durations are numbers with a unit: us, ms, s, m or h.
//
// # Commands
//
// A command is one line, and its answer is one line: "ok …" or "error: …".
// [Node.Command] and dcgmsimd --command work without an engine. The commands, as
// listed by dcgmsimd --help:
//
//	xid pace MS                                   let an engine receive one XID every MS milliseconds; 0: all at once; default 1000
//	xid N gpu I [gi G|ci C] [count TIMES] [kmsg only|both|twice]  make DCGM report an XID; kmsg: also log it in the kernel log (only: instead; twice: DCGM reports both)
//	sxid N switch S [port P] fatal|nonfatal       make DCGM report an SXid of an NVSwitch
//	lose gpu I                                    make a GPU fall off the bus
//	mute gpu I                                    make every NVML query of a GPU fail while its handle opens: DCGM does not mark it as lost
//	return gpu I                                  bring a lost or mute GPU back
//	detach gpu I                                  unbind a GPU from the driver
//	attach gpu I                                  bind a detached GPU to the driver
//	mig gpu I LAYOUT                              partition a GPU: 1g.10gb*7, 3g.40gb+2g.20gb*2, 3g.40gb/1c,2c, none or off
//	link gpu I|switch S port P down|up            take an NVLink down or up
//	link gpu I|switch S port P error replay|recovery|flit|crc|ecc N  add N errors to an NVLink
//	switch S lost|back                            lose an NVSwitch, or bring it back
//	reason gpu I NAME on|off|auto                 force a clock event reason, or let it follow the load and the heat
//	heat gpu I|switch S|cpu C DEGREES             add degrees Celsius to the temperature that follows from the load
//	ecc gpu I sbe|dbe N [device|sram|l1|l2|register|texture|shared|cbu]  add N ECC errors; the default location is device
//	remap gpu I correctable|uncorrectable N       add N remapped rows
//	remap gpu I pending|failure 0|1               set whether a row remapping is pending or has failed
//	retire gpu I sbe|dbe N                        add N retired pages
//	retire gpu I pending 0|1                      set whether a page retirement is pending
//	recovery gpu I none|reset|reboot|drain-p2p|drain-and-reset  set the recovery action
//	fabric gpu I unsupported|not-started|in-progress|success|failure [CODE]  set the fabric manager's status; CODE is the error of a failure
//	health gpu I|switch S|cpu C SYSTEM pass|warn|fail [CODE]  set the result of a health check; CODE is a DCGM_FR_* number
//	profiling gpu I|all frozen|zero|stalled [for-good]  break profiling until the next new watch; for-good: until profiling ok
//	profiling gpu I|all locked [CODE]             let a different client hold the profiling lock; watching fails with CODE
//	profiling gpu I|all ok                        repair profiling
//	blank field F [gpu I|switch S|cpu C]          make a field blank
//	unblank field F [gpu I|switch S|cpu C]        remove the blank, or the value set, of a field
//	set field F value V [gpu I|switch S|cpu C]    set the value of a field
//	unset field F [gpu I|switch S|cpu C]          remove the value set, or the blank, of a field
//	hang CALL                                     make a call block until the fault is cleared
//	slow CALL MS                                  delay a call by MS milliseconds
//	fail CALL CODE                                make a call return CODE
//	crash CALL                                    make a call end its process with SIGSEGV
//	garbage CALL BYTE|noise|size                  fill a call's answers of NVML or an embedded engine with a byte, change some bytes, or demand a huge buffer
//	clear [CALL]                                  remove the faults of a call; without CALL, undo all commands except counters, loads, processes and MIG
//	engine lost|back                              lose the host engine, so that calls fail and connections drop, or bring it back
//	clock MS                                      set the clock of engines ahead of the node's by MS milliseconds, which may be negative
//	load gpu I|all util PERCENT [mem PERCENT]     set a constant load
//	load gpu I|all idle|steady|bursty|training|bursts  set a kind of load
//	process gone pid P                            end a process
//	process none [gpu I]                          end all processes, or those on a GPU
//	process gpu I pid P [ci C] [name N] [memory MIB|unknown] [share PERCENT] [graphics yes|also] [mps yes]  start a process
//	print stdout|stderr TEXT                      make each engine print a line
//	truth link gpu I|switch S port P              show the exact state and totals of an NVLink
//	truth gpu I                                   show the exact readings and totals that every published value derives from
//	state                                         show which devices and faults the node has
//
// Arguments:
//
//	I, S, C, P    DCGM id of a GPU, an NVSwitch or a CPU; a port of a link. All count from 0.
//	gi G, ci C    number of a GPU or compute instance of the GPU, 0 to 6, in order of creation
//	CALL          name of a C function of either library; "sampling": the engine's reads of the driver;
//	              "list-switches": listing the NVSwitches with dcgmGetEntityGroupEntities;
//	              "mig-monitor": listing the processes of all instances of a GPU at once, which NVML
//	              allows to privileged users; or a prefix with a final "*"
//	NAME          a clock event reason: gpu_idle, clocks_setting, power_cap, hw_slowdown, sync_boost,
//	              sw_thermal, hw_thermal, hw_power_brake, display_clocks
//	SYSTEM        pcie, nvlink, pmu, mcu, memory, sm, inforom, thermal, power, driver,
//	              nvswitch-nonfatal, nvswitch-fatal, connectx, imex
//
// # Faults
//
// The commands hang, slow, fail, crash and garbage apply to one function of the C
// ABI, in every process of the node. The command garbage applies to NVML and an
// embedded engine: counts, ids, numbers and texts of a successful answer are
// overwritten, with the byte 255 for example by absurd counts and unterminated texts. The
// argument size makes NVML's lists of processes and utilisation demand room for 2^28 entries. A fault on "sampling" stops new samples while calls
// still answer from the old ones. Faults of the hardware have commands of their
// own: lose, detach, xid, sxid, link, switch, heat, reason, ecc, remap, retire,
// recovery, fabric, health, profiling, blank and set. The command engine
// simulates a lost host engine, and xid with 119 a dead driver.
//
// # Reproduced behaviour of DCGM
//
// The stand-in follows what was observed on DCGM 4.6:
//
//   - A connection to a standalone engine is tried for 5 s. A call of a stopped
//     engine times out after 60 s. After the engine dies, its handles never
//     recover.
//   - If an engine accepts a connection and does not answer, connecting takes 120 s, the
//     time of two calls. It then succeeds, and every call on the handle fails with
//     connection-not-valid (dcgmConnect_v2 in DcgmApi.cpp).
//   - Reading a field needs a watch that covers the entity. A group of GPUs does
//     not cover their instances. Limits: 128 fields per field group, 64 groups,
//     64 field groups, with DCGM's own counted.
//   - Missing values have status 0 and a sentinel (blank, not supported), or the
//     status NO_DATA. Field 230 has no data before the first XID.
//   - Profiling fields are means between two samples, and the first sample is
//     blank. Before Hopper they need a module, which this node has with the
//     statement profiling yes.
//   - A lost GPU leaves the list of supported devices. Its fields are blank, name
//     and UUID included. Throughputs of its links keep their latest sample.
//   - DCGM marks a GPU as lost only if nvmlDeviceGetHandleByIndex fails for it. If only
//     the queries fail (the command mute), its status remains OK. Fields that DCGM reads
//     one by one are blank. Fields that it reads with nvmlDeviceGetFieldValues keep their
//     last value and its old time, with status 0.
//   - A bind or unbind event detaches all GPUs for a moment.
//   - The reading functions answer from the cache while a driver call hangs (the
//     command hang sampling). Only the times of the values show it.
//   - dcgmGetNvLinkLinkStatus returns -33 without the NVSwitch module (the command
//     fail dcgmGetNvLinkLinkStatus -33).
//   - Field 526 is 0 on GPUs and instances, although its level is vGPU. Of an
//     unreachable GPU it is the text <<<NULL>>> with status 0.
//   - The event thread takes one NVML event per second, so a burst of 20 XIDs takes
//     20 s. XIDs of one entity that are taken at once can have equal times.
//   - Entity ids of MIG instances are reused after a repartition. Utilisation is
//     blank on a MIG GPU and its instances.
//   - XIDs of a compute instance are recorded on that entity only. XIDs before an
//     engine's start are unknown to it. XID 119 blanks every field until the
//     engine restarts.
//   - The health incident of an XID remains until the engine restarts, whatever happens to
//     the GPU. DCGM keeps the number of the entity only, so that an XID with an incident of
//     all systems on GPU 3 is one of NVSwitch 3 and CPU 3 as well.
//   - A policy violation is reported about one second after it occurs.
//
// # NVLinks
//
// The id of a link entity is that of dcgm_link_t: the kind of the parent in the
// lowest 8 bits, the port in the next 16, the id of the parent in the highest 8.
// The 18 links of a GPU end at ports of four switches as on a DGX H100: 5, 4, 4
// and 5. These ports report the same link from its other end. With "gpu-ports
// no" they are off, so each link is reported once. Trunks lead out of the node
// and carry a fraction of one GPU's traffic. Each link of a GPU has a different
// traffic.
//
//	dgx-h100  8 × 18 GPU links and 72 trunks: the 216 links of a DGX H100 on the NVLink network
//	gb200     a compute tray: 4 × 18 GPU links to switches in other trays, 2 × 72 cores
//
// A file with "base h100x8" and "switches 4" is an HGX board without a network:
// 144 GPU links, and the 144 ports at which they end.
package dcgmsim
