/* SPDX-License-Identifier: BSD-3-Clause */
#include "nf.h"

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_nat}};
const hb_nf_kind hb_nat_kind = {.engines = engines, .nb_engines = 1};
