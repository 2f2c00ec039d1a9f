/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The simulated node: the hardware that every stand-in (libdcgm.so.4,
 * libnvidia-ml.so.1, dcgmsimd) looks at. It lives in one mapping that all
 * processes share (DCGMSIM_STATE=path), so a lost GPU, a MIG layout, an XID or
 * an energy counter outlives any of them. Engine state (groups, watches,
 * samples) is not here: it belongs to a process and dies with it.
 *
 * No DCGM or NVML types here. Every string is NUL-terminated.
 */
#ifndef DCGMSIM_NODE_H
#define DCGMSIM_NODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NODE_MAX_GPUS 32
#define NODE_MAX_GIS 7 /* GPU instances of one GPU */
#define NODE_MAX_CIS 7 /* compute instances of one GPU */
#define NODE_MAX_PROCESSES 256
#define NODE_MAX_JOURNAL 4096
#define NODE_MAX_FAULTS 64
#define NODE_MAX_OVERRIDES 256
#define NODE_MAX_EVENTS 64
#define NODE_MAX_LINKS 36    /* NVLinks of one GPU */
#define NODE_MAX_SWITCHES 12
#define NODE_MAX_PORTS 64    /* of one NVSwitch */
#define NODE_MAX_CPUS 8
#define NODE_MAX_CORES 1024  /* of all CPUs together */
#define NODE_MAX_AILMENTS 64
#define NODE_LAYOUT 3 /* of struct node_state: a state file of another one is refused */
#define NODE_NAME_LEN 96
#define NODE_UUID_LEN 48

/* What a GPU model can do: constants of the scenario. */
struct node_model {
    char name[NODE_NAME_LEN]; /* "NVIDIA H100 80GB HBM3" */
    char brand[32];           /* "NVIDIA", "Tesla" */
    char architecture[16];    /* "hopper", "ampere", "turing", "ada", "volta", "blackwell" */
    uint32_t cuda_major, cuda_minor;
    uint32_t pci_device_id, pci_subsystem_id; /* as NVML packs them */
    uint64_t fb_total_mib, fb_reserved_mib, bar1_total_mib;
    double power_idle_w, power_limit_w, power_min_w, power_max_w;
    double temp_idle_c, temp_load_c, temp_slowdown_c, temp_shutdown_c;
    bool has_memory_temp; /* HBM */
    bool has_fan;
    bool has_energy;   /* Volta and newer */
    bool has_ecc;      /* ECC memory counters */
    bool has_remap;    /* row remapping (Ampere and newer) instead of page retirement */
    bool mig_capable;
    bool profiling; /* DCGM's profiling fields work */
    uint32_t sm_idle_mhz, sm_max_mhz, mem_idle_mhz, mem_max_mhz, video_max_mhz;
    uint32_t pcie_gen, pcie_width;
    uint32_t nvlinks, nvlink_version; /* links per GPU */
    double nvlink_link_bps;           /* bytes/s of one link, one direction */
    uint32_t sm_count, encoders, decoders;
    uint32_t c2c_links;   /* to a Grace CPU; 0: none */
    double c2c_link_mbps; /* of one of them */
    bool ecc_locations;   /* ECC errors are told by location, not only as DRAM and SRAM */
};

enum node_link_error {
    NODE_LINK_REPLAY,
    NODE_LINK_RECOVERY,
    NODE_LINK_FLIT,
    NODE_LINK_CRC, /* of data */
    NODE_LINK_ECC,
    NODE_LINK_ERRORS
};

enum node_link_cause { /* of being down */
    NODE_LINK_BY_COMMAND = 1,
    NODE_LINK_BY_GPU = 2,    /* it is lost, or detached */
    NODE_LINK_BY_SWITCH = 4  /* it is lost */
};

/*
 * One NVLink, at the end where its state is kept: the GPU's, or the switch's
 * where the link leaves the node. What it carried is a share of its GPU's busy
 * seconds, less those that passed while it was down.
 */
struct node_link {
    uint32_t down; /* of enum node_link_cause; 0: up */
    double missed_busy_s; /* until the last change */
    double down_busy_s;   /* when it went down */
    uint64_t downs;       /* how often */
    uint64_t error[NODE_LINK_ERRORS];
};

enum node_ecc_location {
    NODE_ECC_DEVICE,
    NODE_ECC_SRAM,
    NODE_ECC_L1,
    NODE_ECC_L2,
    NODE_ECC_REGISTER,
    NODE_ECC_TEXTURE,
    NODE_ECC_SHARED,
    NODE_ECC_CBU,
    NODE_ECC_LOCATIONS
};

/* NVML's bits of why clocks are held (nvml.h, nvmlClocksEventReason*). */
enum node_reason {
    NODE_REASON_IDLE = 0x1,
    NODE_REASON_CLOCKS_SETTING = 0x2,
    NODE_REASON_POWER_CAP = 0x4,
    NODE_REASON_HW_SLOWDOWN = 0x8,
    NODE_REASON_SYNC_BOOST = 0x10,
    NODE_REASON_SW_THERMAL = 0x20,
    NODE_REASON_HW_THERMAL = 0x40,
    NODE_REASON_HW_POWER_BRAKE = 0x80,
    NODE_REASON_DISPLAY = 0x100
};
#define NODE_REASONS 9

/* For how long each reason was active since the boot; brought up to date by whoever reads. */
struct node_throttle {
    int64_t until_us;
    int64_t reason_ns[NODE_REASONS]; /* by bit */
    int64_t held_ns;                 /* any of them that costs clocks */
};

enum node_profiling { NODE_PROFILING_OK, NODE_PROFILING_FROZEN, NODE_PROFILING_ZERO, NODE_PROFILING_STALLED, NODE_PROFILING_LOCKED };

struct node_ci { /* compute instance; one MIG device as NVML sees it */
    bool present;
    uint8_t gi;         /* its GPU instance: slot in node_gpu.gi */
    uint32_t entity_id; /* DCGM: gpu id * 7 + order */
    uint32_t nvml_id;   /* NVML compute instance id, unique within its GPU instance */
    uint32_t slices;    /* compute slices */
    uint32_t sm_count;
    char uuid[NODE_UUID_LEN];    /* "MIG-…" */
    char profile[32];            /* "1g.10gb", or "1c.3g.40gb" for a part of one */
    char name[NODE_NAME_LEN];    /* "NVIDIA H100 80GB HBM3 MIG 1g.10gb" */
};

struct node_gi { /* GPU instance */
    bool present;
    uint32_t entity_id; /* DCGM: gpu id * 7 + order of creation: reused after a re-split */
    uint32_t nvml_id;   /* NVML GPU instance id: 7.. for 1g, 3.. for 2g, 1.. for 3g/4g, 0 for 7g */
    uint32_t slices, memory_slices; /* compute slices (of 7), memory slices (of 8) */
    uint32_t placement_start, placement_size; /* in memory slices */
    uint64_t fb_total_mib;
    uint32_t sm_count;
    char profile[32]; /* "1g.10gb" */
};

/* Load of one GPU since `since_us`; totals up to then are folded into base_*. */
enum node_load_kind { NODE_LOAD_IDLE, NODE_LOAD_STEADY, NODE_LOAD_BURSTY, NODE_LOAD_TRAINING, NODE_LOAD_BURSTS, NODE_LOAD_FIXED };

struct node_load {
    uint32_t kind; /* enum node_load_kind */
    double fixed_util, fixed_mem; /* 0..1; fixed_mem < 0: follows the load */
    int64_t since_us;
    double scale;         /* part of the GPU in use: 1, or the slices of its instances / 7 with MIG */
    double base_busy_s;   /* integral of utilisation until since_us */
    double base_energy_j; /* integral of power until since_us */
};

struct node_gpu {
    uint32_t dcgm_id;    /* DCGM GPU id: neither contiguous nor in NVML's order, in general */
    uint32_t nvml_index; /* position in NVML's enumeration (PCI order) */
    uint32_t minor;      /* /dev/nvidiaN */
    char uuid[NODE_UUID_LEN]; /* "GPU-…" */
    char serial[32];
    char vbios[32];
    char pci_bus_id[32]; /* "00000000:18:00.0" */
    uint32_t pci_domain, pci_bus, pci_device;
    uint32_t numa_node;
    uint64_t cpu_affinity[4];
    uint64_t seed;
    struct node_model model;
    struct node_load load;
    bool lost;     /* fell off the bus: NVML_ERROR_GPU_IS_LOST, DCGM status LOST */
    bool detached; /* unbound from the driver: gone from NVML's list, DCGM status DETACHED */
    double heat_c; /* above what the load explains */
    uint64_t reasons_on, reasons_off; /* forced */
    struct node_throttle throttle;
    struct node_link link[NODE_MAX_LINKS];
    uint64_t ecc_volatile[2][NODE_ECC_LOCATIONS]; /* single-bit, double-bit */
    uint64_t ecc_aggregate[2][NODE_ECC_LOCATIONS];
    uint64_t remap_correctable, remap_uncorrectable;
    bool remap_pending, remap_failed;
    uint64_t retired_sbe, retired_dbe;
    bool retired_pending;
    uint32_t recovery_action; /* NVML_GPU_RECOVERY_ACTION_* */
    uint32_t fabric_status;   /* dcgmFabricManagerStatus_t */
    int32_t fabric_error;
    uint32_t profiling_mode;  /* enum node_profiling */
    bool profiling_for_good;  /* a new watch does not mend it */
    int32_t profiling_code;   /* what watching answers while it is locked */
    int64_t profiling_since_us;
    struct node_load profiling_load; /* as it was then */
    uint32_t profiling_seq;   /* grows with each of these commands */
    bool mig_enabled; /* may be on with no instances */
    uint32_t mig_generation; /* grows with every change of the layout */
    struct node_gi gi[NODE_MAX_GIS]; /* slot = order of creation */
    struct node_ci ci[NODE_MAX_CIS];
};

enum node_port_kind { NODE_PORT_UNUSED, NODE_PORT_GPU, NODE_PORT_TRUNK };

struct node_port {
    uint8_t kind;     /* enum node_port_kind */
    uint8_t gpu;      /* position: at the other end, or whose traffic a trunk carries */
    uint8_t gpu_link; /* at the other end */
    struct node_link link; /* of a trunk; that of a GPU's link is with the GPU */
};

struct node_switch {
    uint32_t id; /* NVSwitch physical id */
    bool lost;
    double heat_c;
    uint32_t pci_domain, pci_bus, pci_device;
    uint64_t seed;
    char uuid[NODE_UUID_LEN];
    struct {
        uint32_t sxid, port;
        int64_t at_us; /* 0: none yet */
    } fatal, non_fatal;
    struct node_port port[NODE_MAX_PORTS];
};

struct node_cpu { /* a socket */
    uint32_t id;
    uint32_t first_core, core_count;
    double heat_c;
    char serial[32];
};

/* What a health check is told to report. */
struct node_ailment {
    bool present;
    uint8_t of; /* enum node_of */
    uint32_t position;
    uint32_t system; /* DCGM_HEALTH_WATCH_* */
    uint32_t result; /* DCGM_HEALTH_RESULT_* */
    uint32_t code;   /* DCGM_FR_* */
};

enum node_process_list { NODE_LIST_COMPUTE = 1, NODE_LIST_GRAPHICS = 2, NODE_LIST_MPS = 4 };

#define NODE_MEMORY_UNKNOWN UINT64_MAX /* the driver does not know: NVML_VALUE_NOT_AVAILABLE */

struct node_process {
    bool present;
    uint32_t pid;
    uint32_t gpu; /* position in node_state.gpu */
    int32_t ci;   /* slot in node_gpu.ci, or -1 when not on an instance */
    uint32_t lists; /* of enum node_process_list: by which of NVML's calls it is listed */
    bool automatic; /* made up by the node itself, and remade with the MIG layout */
    uint64_t memory_bytes; /* or NODE_MEMORY_UNKNOWN */
    double share; /* part of the device's (instance's) load it makes, 0..1 */
    int64_t start_us;
    char name[64];
};

enum node_xid_where { NODE_XID_GPU, NODE_XID_GI, NODE_XID_CI };

struct node_xid { /* the journal of XIDs, as the kernel log keeps it */
    uint64_t seq; /* 1, 2, … */
    int64_t at_us; /* wall clock, µs since 1970 */
    uint32_t gpu;  /* position in node_state.gpu */
    uint32_t where; /* enum node_xid_where: which entity DCGM records it on */
    uint32_t slot;  /* of the instance */
    uint32_t xid;
};

enum node_fault_kind { NODE_FAULT_NONE, NODE_FAULT_HANG, NODE_FAULT_SLOW, NODE_FAULT_FAIL, NODE_FAULT_CRASH };

struct node_fault {
    uint32_t kind; /* enum node_fault_kind */
    int32_t arg;   /* SLOW: milliseconds; FAIL: the code to return */
    char call[64]; /* C function name, or "*" */
};

enum node_of { NODE_OF_GPU, NODE_OF_SWITCH, NODE_OF_CPU };

struct node_override { /* a field forced to a value, or to blank */
    bool present;
    bool blank;
    uint8_t group; /* enum node_of: what `gpu` counts */
    int32_t gpu; /* position, or -1 for every entity */
    uint16_t field;
    double value;
};

struct node_event { /* a timed command of the scenario */
    bool present, done;
    int64_t at_us;
    char command[160];
};

struct node_state {
    uint64_t magic;
    uint32_t layout, size;
    atomic_uint ready; /* 1 once initialised */
    pthread_mutex_t lock; /* process-shared, robust: node_lock, node_unlock */
    char scenario[256];
    uint64_t seed;
    int64_t boot_us; /* wall clock of the node's boot: energy counts from here */
    int64_t init_delay_us_base, init_delay_us_per_gpu; /* of an engine's start */
    int64_t connect_timeout_us, call_timeout_us;       /* of a standalone client */
    char driver_version[32], nvml_version[32], cuda_version_text[16];
    int32_t cuda_version; /* 12080 */
    uint32_t gpu_count;
    struct node_gpu gpu[NODE_MAX_GPUS]; /* in DCGM's order; see nvml_index */
    uint32_t switch_count;
    bool gpu_ports; /* the switches tell of the ports that face GPUs */
    struct node_switch nvswitch[NODE_MAX_SWITCHES];
    uint32_t cpu_count; /* Grace; 0: none that DCGM knows */
    struct node_cpu cpu[NODE_MAX_CPUS];
    struct node_ailment ailment[NODE_MAX_AILMENTS];
    struct node_process process[NODE_MAX_PROCESSES];
    atomic_uint generation; /* grows with any change to gpu[], nvswitch[], cpu[] or ailment[] */
    _Atomic uint64_t xid_seq; /* of the newest entry of the journal */
    struct node_xid xid[NODE_MAX_JOURNAL]; /* entry seq is at [seq % NODE_MAX_JOURNAL] */
    int64_t xid_pace_us; /* an engine takes one XID that often; 0: all at once */
    char kernel_log[256]; /* path of the file of kernel messages, or empty */
    uint64_t kernel_log_seq;
    atomic_uint fault_count; /* 0: no fault set, calls pass at once */
    struct node_fault fault[NODE_MAX_FAULTS];
    atomic_uint override_generation;
    struct node_override override[NODE_MAX_OVERRIDES];
    atomic_uint engine_lost;
    atomic_uint print_seq; /* grows when an engine is to print print_text */
    uint32_t print_stderr;
    char print_text[256];
    _Atomic int64_t next_event_us; /* of the earliest event not done; INT64_MAX when none */
    struct node_event event[NODE_MAX_EVENTS];
};

/*
 * node_open maps the node, creating it from the scenario when it is new. It is
 * idempotent and thread-safe; NULL on failure with the reason in err.
 * The pointer stays valid for the life of the process.
 */
struct node_state *node_open(char *err, size_t err_len);

/* Held for a few microseconds only; survives the death of a holder. */
void node_lock(struct node_state *n);
void node_unlock(struct node_state *n);

/* Wall clock in µs, the clock of every timestamp here. */
int64_t node_now_us(void);

/*
 * To be called first in every exported function, with the function's own name:
 * sleeps, blocks or kills the process as the faults on that call say, and
 * carries out timed events that are due. Returns 0, or the code to return.
 */
int node_enter_call(struct node_state *n, const char *call);

/* Copies gpu[position] as one consistent piece (MIG layout included). */
void node_copy_gpu(struct node_state *n, uint32_t position, struct node_gpu *out);

/* Position in node_state.gpu by one of its names; -1 when there is none. */
int node_gpu_by_dcgm_id(const struct node_state *n, uint32_t dcgm_id);
int node_gpu_by_nvml_index(const struct node_state *n, uint32_t index);
int node_gpu_by_uuid(const struct node_state *n, const char *uuid);
int node_switch_by_id(const struct node_state *n, uint32_t id);

/* What the hardware shows at a moment: a pure function of seed, load and time. */
struct node_reading {
    double util;          /* engine activity 0..1 */
    double mem_util;      /* memory bandwidth activity 0..1 */
    double enc_util, dec_util;
    double enc_full, dec_full; /* at full utilisation */
    double fb_used_mib, fb_free_mib, fb_reserved_mib, fb_total_mib;
    double bar1_used_mib;
    double power_w, temp_c, mem_temp_c;
    double sm_mhz, mem_mhz, video_mhz;
    double energy_mj;     /* since boot, millijoule: the integral of power_w */
    double busy_s;        /* since boot: the integral of util */
    double pcie_tx_bps, pcie_rx_bps, pcie_tx_bytes, pcie_rx_bytes; /* rate, and total since boot */
    double nvlink_tx_bps, nvlink_rx_bps, nvlink_tx_bytes, nvlink_rx_bytes; /* all links together */
    double sm_active, sm_occupancy, tensor_active, dram_active, fp64_active, fp32_active, fp16_active;
    uint32_t pstate;
    double fan_percent;
    uint64_t clocks_event_reasons; /* NVML's bits */
};

void node_read_gpu(const struct node_gpu *gpu, int64_t boot_us, int64_t at_us, struct node_reading *out);
/* Mean utilisation between two moments, under the load that there is at the second. */
double node_mean_util(const struct node_gpu *gpu, int64_t boot_us, int64_t from_us, int64_t to_us);
/* Makes the ratios and rates of a reading those of a mean utilisation of the GPU. */
void node_set_mean(const struct node_gpu *gpu, int gi_slot, int ci_slot, double util, struct node_reading *reading);
/* The same for a GPU instance, or for one of its compute instances (ci_slot >= 0). */
void node_read_instance(const struct node_gpu *gpu, int gi_slot, int ci_slot, int64_t boot_us, int64_t at_us,
                        struct node_reading *out);

/* Brings the throttle times of a GPU up to a moment. Under node_lock. */
void node_advance_throttle(struct node_gpu *gpu, int64_t boot_us, int64_t at_us);

/*
 * Takes a link down for a cause, or lifts the cause; gpu is the one whose busy
 * seconds it shares. Under node_lock, as the two below.
 */
void node_set_link(struct node_link *link, const struct node_gpu *gpu, int64_t boot_us, int64_t now_us, uint32_t cause,
                   bool down);
/* Loses, detaches or returns a GPU, or a switch, and their links with it. */
void node_set_presence(struct node_state *n, uint32_t gpu_position, bool lost, bool detached);
void node_set_switch(struct node_state *n, uint32_t position, bool lost);

/* What one link shows at its own end. */
struct node_link_reading {
    bool up;
    double tx_bps, rx_bps, tx_bytes, rx_bytes; /* rate, and total since boot */
};
/* `r` is the reading of that GPU at the same moment. */
void node_read_link(const struct node_gpu *gpu, uint32_t index, const struct node_reading *r, struct node_link_reading *out);
/* gpu: the node's, or a copy of it; r: the reading of the port's GPU. */
void node_read_port(const struct node_port *port, const struct node_gpu *gpu, const struct node_reading *r,
                    struct node_link_reading *out);
/* Bytes a second of one of a GPU's links, one direction, at full load. */
double node_link_rate(const struct node_model *m);
/* Busy seconds in which the link was up. */
double node_link_busy(const struct node_link *link, double busy_s);
/* The link that a port's state and errors are kept in. */
struct node_link *node_port_link(struct node_state *n, struct node_port *port);
/*
 * Wires the GPUs to `count` switches, 5, 4, 4 and 5 of 18 links to each of four
 * as on a DGX H100, with so many trunks out of the node on each; -1 when a
 * switch has too few ports.
 */
int node_wire(struct node_state *n, uint32_t count, const uint32_t *trunks);

struct node_cpu_reading {
    double user, nice, sys, irq; /* parts of the time, 0..1 */
};
/* Of one core, by the mean activity of the node's GPUs at that moment, 0..1. */
void node_read_core(uint64_t seed, uint32_t core, double gpu_util, int64_t at_us, struct node_cpu_reading *out);

/* Sets a load from now on; what it made until now stays counted. Under node_lock. */
void node_set_load(struct node_gpu *gpu, int64_t boot_us, int64_t now_us, uint32_t kind, double util, double mem,
                   double scale);

/*
 * Splits a GPU: "1g.10gb*7", "3g.40gb+2g.20gb*2", "3g.40gb/1c,2c" (compute
 * instances of 1 and 2 slices), "none" (MIG on, no instances), "off". Under
 * node_lock. Returns 0, or -1 with the reason in err and nothing changed.
 */
int node_set_mig(struct node_state *n, uint32_t position, const char *layout, char *err, size_t err_len);

/* A scenario by name or path, into a node that holds only zeros. */
int node_load_scenario(struct node_state *n, const char *name, char *err, size_t err_len);
/* Name of built-in scenario i, NULL past the last one. */
const char *node_builtin_name(size_t i);

/* Deterministic noise: a good 64-bit mix of its arguments. */
uint64_t node_hash(uint64_t a, uint64_t b);

/* Carries out the timed events that are due; cheap when none is. */
void node_run_events(struct node_state *n);

/*
 * Carries out one control command (see doc.go), by whichever process; writes
 * one line, "ok…" or "error: …". Returns 0 when it was carried out.
 */
int node_command(struct node_state *n, const char *line, char *answer, size_t answer_len);

#endif
