/* SPDX-License-Identifier: BSD-3-Clause */
/* router.c: what the router is on the host: nothing yet but its packet function. */
#include "nf.h"

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_router}};
extern const hb_nf_kind hb_router_kind;
const hb_nf_kind hb_router_kind = {.engines = engines, .nb_engines = 1};
