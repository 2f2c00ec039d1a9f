/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The handlers of the commands. command.c has the table that names and describes them. */
#ifndef DCGMSIM_COMMAND_HANDLERS_H
#define DCGMSIM_COMMAND_HANDLERS_H

#include "command/request.h"

/* devices.c: events and presence of GPUs, links and switches */
enum command_result handle_xid(struct request *r);
enum command_result handle_xid_pace(struct request *r);
enum command_result handle_sxid(struct request *r);
enum command_result handle_presence(struct request *r);
enum command_result handle_mig(struct request *r);
enum command_result handle_link(struct request *r);
enum command_result handle_switch(struct request *r);

/* conditions.c: the condition of the hardware */
enum command_result handle_reason(struct request *r);
enum command_result handle_heat(struct request *r);
enum command_result handle_ecc(struct request *r);
enum command_result handle_repair(struct request *r);
enum command_result handle_recovery(struct request *r);
enum command_result handle_fabric(struct request *r);
enum command_result handle_health(struct request *r);
enum command_result handle_profiling(struct request *r);
/* Resets every condition, and brings links and switches up. The caller holds the lock. */
void conditions_clear(struct node_state *n);

/* faults.c: faults of calls, overrides of fields, the engine */
enum command_result handle_fault(struct request *r);
enum command_result handle_override(struct request *r);
enum command_result handle_clear(struct request *r);
enum command_result handle_engine(struct request *r);
enum command_result handle_clock(struct request *r);
enum command_result handle_print(struct request *r);

/* workload.c: loads and processes */
enum command_result handle_load(struct request *r);
enum command_result handle_process(struct request *r);
enum command_result handle_process_gone(struct request *r);
enum command_result handle_process_none(struct request *r);

/* report.c: the state of the node */
enum command_result handle_truth(struct request *r);
enum command_result handle_truth_link(struct request *r);
enum command_result handle_state(struct request *r);

#endif
