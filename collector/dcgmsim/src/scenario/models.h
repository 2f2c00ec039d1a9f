/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* GPU models of a scenario. */
#ifndef DCGMSIM_SCENARIO_MODELS_H
#define DCGMSIM_SCENARIO_MODELS_H

#include "scenario/parser.h"

/* Gives the parser the built-in models. */
void models_init(struct parser *p);
/* A model by its name in scenario files; NULL if there is none. */
struct node_model *find_model(struct parser *p, const char *key);

enum statement_result statement_model(struct parser *p, char **words, int count, const char *line);

#endif
