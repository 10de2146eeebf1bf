/* SPDX-License-Identifier: BSD-3-Clause */
/* sink.c: the far end of a benchmark: takes everything. */
#include "port.h"

#include <stdlib.h>

static uint32_t sink_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    (void)port, (void)a, (void)handles;
    return n;
}

static void sink_close(hb_port *port)
{
    free(port);
}

hb_port *hb_sink_open(void)
{
    static const hb_port_ops ops = {.tx = sink_tx, .close = sink_close};
    hb_port *port = calloc(1, sizeof *port);
    if (port)
        port->ops = &ops;
    return port;
}
