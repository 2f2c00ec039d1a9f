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
#define NODE_MAX_JOURNAL 256
#define NODE_MAX_FAULTS 64
#define NODE_MAX_OVERRIDES 256
#define NODE_MAX_EVENTS 64
#define NODE_LAYOUT 2 /* of struct node_state: a state file of another one is refused */
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
};

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
enum node_load_kind { NODE_LOAD_IDLE, NODE_LOAD_STEADY, NODE_LOAD_BURSTY, NODE_LOAD_TRAINING, NODE_LOAD_FIXED };

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
    bool mig_enabled; /* may be on with no instances */
    uint32_t mig_generation; /* grows with every change of the layout */
    struct node_gi gi[NODE_MAX_GIS]; /* slot = order of creation */
    struct node_ci ci[NODE_MAX_CIS];
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

struct node_override { /* a field forced to a value, or to blank */
    bool present;
    bool blank;
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
    struct node_process process[NODE_MAX_PROCESSES];
    atomic_uint generation; /* grows with any change to gpu[] */
    _Atomic uint64_t xid_seq; /* of the newest entry of the journal */
    struct node_xid xid[NODE_MAX_JOURNAL]; /* entry seq is at [seq % NODE_MAX_JOURNAL] */
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

/* What the hardware shows at a moment: a pure function of seed, load and time. */
struct node_reading {
    double util;          /* engine activity 0..1 */
    double mem_util;      /* memory bandwidth activity 0..1 */
    double enc_util, dec_util;
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
    double power_violation_us, thermal_violation_us; /* since boot */
};

void node_read_gpu(const struct node_gpu *gpu, int64_t boot_us, int64_t at_us, struct node_reading *out);
/* The same for a GPU instance, or for one of its compute instances (ci_slot >= 0). */
void node_read_instance(const struct node_gpu *gpu, int gi_slot, int ci_slot, int64_t boot_us, int64_t at_us,
                        struct node_reading *out);

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

/* Looks up an override; false when the field is as the hardware says. */
bool node_find_override(struct node_state *n, uint32_t gpu_position, uint16_t field, struct node_override *out);

/*
 * Carries out one control command (see doc.go), by whichever process; writes
 * one line, "ok…" or "error: …". Returns 0 when it was carried out.
 */
int node_command(struct node_state *n, const char *line, char *answer, size_t answer_len);

#endif
