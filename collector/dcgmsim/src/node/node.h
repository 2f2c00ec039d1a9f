/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The simulated node: the hardware that every stand-in (libdcgm.so.4,
 * libnvidia-ml.so.1, dcgmsimd) reads. It is one memory mapping that all
 * processes share (DCGMSIM_STATE=path), so a lost GPU, a MIG layout, an XID or
 * an energy counter outlives each of them. The state of an engine (groups,
 * watches, samples) is not here: it belongs to a process and ends with it.
 *
 * This header has no DCGM or NVML types. Every string is NUL-terminated.
 */
#ifndef DCGMSIM_NODE_NODE_H
#define DCGMSIM_NODE_NODE_H

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
#define NODE_MAX_INCIDENTS 64
#define NODE_LAYOUT 5 /* version of struct node_state; a state file of a different version is rejected */
#define NODE_XID_PACE_US 1000000 /* the event thread of an engine takes one NVML event per second */
#define NODE_NAME_LEN 96
#define NODE_UUID_LEN 48

/* The properties of a GPU model, constant in a scenario. */
struct node_model {
    char name[NODE_NAME_LEN]; /* "NVIDIA H100 80GB HBM3" */
    char brand[32];           /* "NVIDIA", "Tesla" */
    char architecture[16];    /* "hopper", "ampere", "turing", "ada", "volta", "blackwell" */
    char vbios[32];
    uint32_t cuda_major, cuda_minor;
    uint32_t pci_device_id, pci_subsystem_id; /* packed as in NVML */
    uint64_t fb_total_mib, fb_reserved_mib, bar1_total_mib;
    double power_idle_w, power_limit_w, power_min_w, power_max_w;
    double temp_idle_c, temp_load_c, temp_slowdown_c, temp_shutdown_c;
    bool has_margin;      /* distance to the slowdown temperature (Ampere and newer) */
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
    double c2c_link_mbps; /* of one link */
    bool ecc_locations;   /* ECC errors are reported by location, not only for DRAM and SRAM */
};

enum node_link_error {
    NODE_LINK_REPLAY,
    NODE_LINK_RECOVERY,
    NODE_LINK_FLIT,
    NODE_LINK_CRC, /* of data packets */
    NODE_LINK_ECC,
    NODE_LINK_ERRORS
};

enum node_link_cause { /* why a link is down; a bit mask */
    NODE_LINK_DOWN_BY_COMMAND = 1,
    NODE_LINK_DOWN_BY_GPU = 2,    /* lost or detached */
    NODE_LINK_DOWN_BY_SWITCH = 4  /* lost */
};

/*
 * One NVLink. Its state is kept at the GPU's end, or at the switch's end if the
 * link leaves the node. Its traffic is proportional to the busy seconds of its
 * GPU while it was up.
 */
struct node_link {
    uint32_t down; /* of enum node_link_cause; 0: up */
    double missed_busy_s; /* busy seconds of the GPU while the link was down, until its last change */
    double down_busy_s;   /* busy seconds of the GPU when the link went down */
    uint64_t downs;       /* how often it went down */
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

/* Clock event reasons; NVML's bits (nvml.h, nvmlClocksEventReason*). */
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

/* How long each reason was active since boot. Every reader first advances it (node_advance_throttle). */
struct node_throttle {
    int64_t until_us;
    int64_t reason_ns[NODE_REASONS]; /* by bit */
    int64_t held_ns;                 /* any reason that reduces clocks */
};

/* dcgmFabricManagerStatus_t */
enum node_fabric_status {
    NODE_FABRIC_UNSUPPORTED,
    NODE_FABRIC_NOT_STARTED,
    NODE_FABRIC_IN_PROGRESS,
    NODE_FABRIC_SUCCESS,
    NODE_FABRIC_FAILURE
};

enum node_profiling { NODE_PROFILING_OK, NODE_PROFILING_FROZEN, NODE_PROFILING_ZERO, NODE_PROFILING_STALLED, NODE_PROFILING_LOCKED };

struct node_ci { /* a compute instance: one MIG device of NVML */
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

struct node_gi { /* a GPU instance */
    bool present;
    uint32_t entity_id; /* DCGM: gpu id * 7 + order of creation; reused after a repartition */
    uint32_t nvml_id;   /* NVML GPU instance id: 7.. for 1g, 3.. for 2g, 1.. for 3g/4g, 0 for 7g */
    uint32_t slices, memory_slices; /* compute slices (of 7), memory slices (of 8) */
    uint32_t placement_start, placement_size; /* in memory slices */
    uint64_t fb_total_mib;
    uint32_t sm_count;
    char profile[32]; /* "1g.10gb" */
};

enum node_load_kind {
    NODE_LOAD_IDLE,
    NODE_LOAD_STEADY,
    NODE_LOAD_BURSTY,
    NODE_LOAD_TRAINING,
    NODE_LOAD_BURSTS,
    NODE_LOAD_FIXED
};

/* The load of one GPU since since_us. The totals until then are in base_*. */
struct node_load {
    uint32_t kind; /* enum node_load_kind */
    double fixed_util, fixed_mem; /* 0 to 1; fixed_mem < 0: follows the load */
    int64_t since_us;
    double scale;         /* fraction of the GPU in use: 1, or with MIG the slices of its instances / 7 */
    double base_busy_s;   /* integral of utilisation until since_us */
    double base_energy_j; /* integral of power until since_us */
};

struct node_gpu {
    uint32_t dcgm_id;    /* DCGM GPU id: may have gaps and differ from NVML's order */
    uint32_t nvml_index; /* position in NVML's enumeration (PCI order) */
    uint32_t minor;      /* /dev/nvidiaN */
    char uuid[NODE_UUID_LEN]; /* "GPU-…" */
    char serial[32];
    char pci_bus_id[32]; /* "00000000:18:00.0" */
    uint32_t pci_domain, pci_bus, pci_device;
    uint32_t numa_node;
    uint64_t cpu_affinity[4];
    uint64_t seed;
    struct node_model model;
    struct node_load load;
    bool lost;     /* fell off the bus: NVML_ERROR_GPU_IS_LOST, DCGM status LOST */
    bool mute;     /* its handle opens, but every NVML query returns NVML_ERROR_GPU_IS_LOST: DCGM does not notice */
    bool detached; /* unbound from the driver: absent from NVML's list, DCGM status DETACHED */
    double heat_c; /* added to the temperature that follows from the load */
    uint64_t reasons_on, reasons_off; /* forced on, forced off */
    struct node_throttle throttle;
    struct node_link link[NODE_MAX_LINKS];
    uint64_t ecc_volatile[2][NODE_ECC_LOCATIONS]; /* single-bit, double-bit */
    uint64_t ecc_aggregate[2][NODE_ECC_LOCATIONS];
    uint64_t remap_correctable, remap_uncorrectable;
    bool remap_pending, remap_failed;
    uint64_t retired_sbe, retired_dbe;
    bool retired_pending;
    uint32_t recovery_action; /* NVML_GPU_RECOVERY_ACTION_* */
    uint32_t fabric_status;   /* enum node_fabric_status */
    int32_t fabric_error;
    uint32_t profiling_mode;  /* enum node_profiling */
    bool profiling_permanent;  /* a new watch does not repair it */
    int32_t profiling_code;   /* the status of watching while profiling is locked */
    int64_t profiling_since_us;
    struct node_load profiling_load; /* the load at profiling_since_us */
    uint32_t profiling_seq;   /* incremented by each command profiling */
    bool mig_enabled; /* may be on without instances */
    uint32_t mig_generation; /* incremented by each change of the layout */
    struct node_gi gi[NODE_MAX_GIS]; /* slot = order of creation */
    struct node_ci ci[NODE_MAX_CIS];
};

enum node_port_kind { NODE_PORT_UNUSED, NODE_PORT_GPU, NODE_PORT_TRUNK };

struct node_port {
    uint8_t kind;     /* enum node_port_kind */
    uint8_t gpu;      /* position of the GPU at the other end, or of the GPU whose traffic a trunk carries */
    uint8_t gpu_link; /* link of that GPU */
    struct node_link link; /* of a trunk; the link of a GPU port is in struct node_gpu */
};

struct node_sxid {
    uint32_t sxid, port;
    int64_t at_us; /* 0: none yet */
};

struct node_switch {
    uint32_t id; /* NVSwitch physical id */
    bool lost;
    double heat_c;
    uint32_t pci_domain, pci_bus, pci_device;
    uint64_t seed;
    char uuid[NODE_UUID_LEN];
    struct node_sxid fatal, non_fatal; /* the latest of each kind */
    struct node_port port[NODE_MAX_PORTS];
};

struct node_cpu { /* a socket */
    uint32_t id;
    uint32_t first_core, core_count;
    double heat_c;
    char serial[32];
};

/* A result of a health check, injected by the command health. */
struct node_incident {
    bool present;
    uint8_t of; /* enum node_entity_kind */
    uint32_t position;
    uint32_t system; /* DCGM_HEALTH_WATCH_* */
    uint32_t result; /* DCGM_HEALTH_RESULT_* */
    uint32_t code;   /* DCGM_FR_* */
};

enum node_process_list { NODE_LIST_COMPUTE = 1, NODE_LIST_GRAPHICS = 2, NODE_LIST_MPS = 4 };

#define NODE_MEMORY_UNKNOWN UINT64_MAX /* unknown to the driver: NVML_VALUE_NOT_AVAILABLE */

struct node_process {
    bool present;
    uint32_t pid;
    uint32_t gpu; /* position in node_state.gpu */
    int32_t ci;   /* slot in node_gpu.ci, or -1 */
    uint32_t lists; /* of enum node_process_list: the NVML calls that list it */
    bool automatic; /* a default process, recreated with the MIG layout */
    uint64_t memory_bytes; /* or NODE_MEMORY_UNKNOWN */
    double share; /* its fraction of the load of the GPU or instance, 0 to 1 */
    int64_t start_us;
    char name[64];
};

enum node_xid_where { NODE_XID_GPU, NODE_XID_GI, NODE_XID_CI };

struct node_xid { /* an entry of the journal of XIDs */
    uint64_t seq; /* 1, 2, … */
    int64_t at_us; /* wall clock, µs since 1970 */
    uint32_t gpu;  /* position in node_state.gpu */
    uint32_t where; /* enum node_xid_where: the entity that DCGM records it on */
    uint32_t slot;  /* of the instance */
    uint32_t xid;
};

enum node_fault_kind { NODE_FAULT_NONE, NODE_FAULT_HANG, NODE_FAULT_SLOW, NODE_FAULT_FAIL, NODE_FAULT_CRASH, NODE_FAULT_GARBAGE };

#define NODE_GARBAGE_NOISE 256 /* argument of a garbage fault: change some bytes at random */
#define NODE_GARBAGE_SIZE 257  /* the same: demand room for NODE_GARBAGE_ENTRIES */
#define NODE_GARBAGE_ENTRIES (1u << 28) /* of 32 bytes: 8 GiB */

struct node_fault {
    uint32_t kind; /* enum node_fault_kind */
    int32_t arg;   /* SLOW: milliseconds; FAIL: the status to return; GARBAGE: the byte, or NODE_GARBAGE_* */
    char call[64]; /* name of a C function, or a prefix with a final "*" */
};

enum node_entity_kind { NODE_ENTITY_GPU, NODE_ENTITY_SWITCH, NODE_ENTITY_CPU };

struct node_override { /* a field set to a value, or to blank */
    bool present;
    bool blank;
    uint8_t group; /* enum node_entity_kind */
    int32_t gpu; /* position in the node's array of that kind, or -1 for all */
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
    pthread_mutex_t lock; /* shared by processes, robust; see node_lock */
    char scenario[256];
    uint64_t seed;
    int64_t boot_us; /* wall clock at boot; totals count from here */
    int64_t init_delay_us_base, init_delay_us_per_gpu; /* of the start of an engine */
    int64_t connect_timeout_us, call_timeout_us;       /* of a standalone client */
    char driver_version[32], nvml_version[32], cuda_version_text[16];
    int32_t cuda_version; /* 12080 */
    uint32_t gpu_count;
    struct node_gpu gpu[NODE_MAX_GPUS]; /* ordered by DCGM id; see nvml_index */
    uint32_t switch_count;
    bool gpu_ports; /* the switches report the ports that face GPUs */
    struct node_switch nvswitch[NODE_MAX_SWITCHES];
    uint32_t cpu_count; /* Grace CPUs; 0 on x86 */
    struct node_cpu cpu[NODE_MAX_CPUS];
    struct node_incident incident[NODE_MAX_INCIDENTS];
    struct node_process process[NODE_MAX_PROCESSES];
    atomic_uint generation; /* incremented by each change of gpu[], nvswitch[], cpu[] or incident[] */
    _Atomic uint64_t xid_seq; /* of the newest entry of the journal */
    struct node_xid xid[NODE_MAX_JOURNAL]; /* entry seq is at [seq % NODE_MAX_JOURNAL] */
    int64_t xid_pace_us; /* an engine receives one XID per this time; 0: all at once */
    char kernel_log[256]; /* path of the kernel log, or empty */
    uint64_t kernel_log_seq;
    atomic_uint fault_count; /* 0: calls skip the search for faults */
    struct node_fault fault[NODE_MAX_FAULTS];
    atomic_uint override_generation;
    struct node_override override[NODE_MAX_OVERRIDES];
    atomic_uint engine_lost;
    _Atomic int64_t engine_clock_us; /* how far the clock of engines is ahead of ours */
    atomic_uint print_seq; /* incremented when each engine must print print_text */
    uint32_t print_stderr;
    char print_text[256];
    _Atomic int64_t next_event_us; /* of the next timed command; INT64_MAX if there is none */
    struct node_event event[NODE_MAX_EVENTS];
};

/* Wall clock in µs since 1970: the clock of every timestamp in the node. */
int64_t node_now_us(void);

/* The lock is held for a few microseconds only. It survives the death of its holder. */
void node_lock(struct node_state *n);
void node_unlock(struct node_state *n);

/* Copies gpu[position] under the lock, so that its MIG layout is consistent. */
void node_copy_gpu(struct node_state *n, uint32_t position, struct node_gpu *out);

/* Positions in node_state.gpu or node_state.nvswitch; -1 if there is none. */
int node_gpu_by_dcgm_id(const struct node_state *n, uint32_t dcgm_id);
int node_gpu_by_nvml_index(const struct node_state *n, uint32_t index);
int node_gpu_by_uuid(const struct node_state *n, const char *uuid);
int node_switch_by_id(const struct node_state *n, uint32_t id);

/* A 64-bit hash of its arguments: the source of deterministic noise. */
uint64_t node_hash(uint64_t a, uint64_t b);

/* Writes PREFIX-xxxxxxxx-xxxx-5xxx-xxxx-xxxxxxxxxxxx, at most NODE_UUID_LEN bytes. */
void node_format_uuid(char *out, const char *prefix, uint64_t a, uint64_t b);

#endif
