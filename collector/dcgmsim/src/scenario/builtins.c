/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The built-in scenarios, written as scenario files. */
#include "scenario/builtins.h"

#include <string.h>

/* clang-format off */
static const struct {
    const char *name, *text;
} builtins[] = {
    {"h100x8",
        "gpu h100 bus 00000000:18:00.0 numa 0\n"
        "gpu h100 bus 00000000:2A:00.0 numa 0\n"
        "gpu h100 bus 00000000:3A:00.0 numa 0\n"
        "gpu h100 bus 00000000:5D:00.0 numa 0\n"
        "gpu h100 bus 00000000:9A:00.0 numa 1\n"
        "gpu h100 bus 00000000:AB:00.0 numa 1\n"
        "gpu h100 bus 00000000:BA:00.0 numa 1\n"
        "gpu h100 bus 00000000:DB:00.0 numa 1\n"},
    {"h100x8-mig", /* whole GPUs, even and uneven layouts, MIG on without instances, two compute instances in one GPU instance */
        "base h100x8\n"
        "mig gpu 0 1g.10gb*7\n"
        "mig gpu 1 3g.40gb+2g.20gb*2\n"
        "mig gpu 2 4g.40gb/2c,2c+3g.40gb\n"
        "mig gpu 3 none\n"
        "mig gpu 4 7g.80gb\n"
        "mig gpu 5 2g.20gb*3+1g.10gb\n"},
    {"a100x8",
        "gpu a100-80 bus 00000000:07:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:0F:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:47:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:4E:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:87:00.0 numa 1\n"
        "gpu a100-80 bus 00000000:90:00.0 numa 1\n"
        "gpu a100-80 bus 00000000:B7:00.0 numa 1\n"
        "gpu a100-80 bus 00000000:BD:00.0 numa 1\n"},
    {"a100x7-mig",
        "gpu a100-40 bus 00000000:00:04.0\n"
        "mig gpu 0 1g.5gb*7\n"},
    {"t4x1",
        "gpu t4 bus 00000000:00:04.0\n"},
    {"mixed4", /* DCGM ids with gaps; NVML's order and the minors differ from them */
        "gpu h100 id 0 minor 2 bus 00000000:C1:00.0 numa 1\n"
        "gpu a100-40 id 1 minor 0 bus 00000000:21:00.0 numa 0\n"
        "gpu l4 id 3 minor 3 bus 00000000:41:00.0 numa 0\n"
        "gpu t4 id 5 minor 1 bus 00000000:81:00.0 numa 1\n"},
    {"dgx-h100", /* on the NVLink network: 144 links from GPUs to switches, 72 from switches out of the node */
        "base h100x8\n"
        "switches 4 gpu-ports no trunks 20,16,16,20\n"},
    {"gb200", /* a compute tray of an NVL72; its switches are in other trays */
        "driver 580.95.05\n"
        "nvml 13.580.95.05\n"
        "cuda 13.0\n"
        "gpu gb200 bus 00000008:01:00.0 numa 0\n"
        "gpu gb200 bus 00000009:01:00.0 numa 0\n"
        "gpu gb200 bus 00000018:01:00.0 numa 1\n"
        "gpu gb200 bus 00000019:01:00.0 numa 1\n"
        "cpus 2 cores 72\n"},
    {"none",
        "# a driver without a GPU\n"},
};
/* clang-format on */

const char *scenario_builtin_name(size_t i)
{
    return i < sizeof builtins / sizeof builtins[0] ? builtins[i].name : NULL;
}

const char *scenario_builtin_text(const char *name)
{
    for (size_t i = 0; i < sizeof builtins / sizeof builtins[0]; i++)
        if (strcmp(builtins[i].name, name) == 0)
            return builtins[i].text;
    return NULL;
}
