/* SPDX-License-Identifier: BSD-3-Clause */
/* bare_lookup.c: look-ups of addresses, the router's or a peer's, by themselves. See api.h. */
#include "bare.h"

static void run_ours(const hb_bare_lookup_config *config, uint32_t at, uint32_t n)
{
    uint16_t hop[HB_BURST];
    config->ours(config->context, config->address + at, hop, n);
    for (uint32_t i = 0; i < n; i++)
        config->hop[at + i] = hop[i];
}

static double run_pass(void *config_)
{
    const hb_bare_lookup_config *config = config_;
    uint16_t hop[HB_BURST];
    uint64_t wide[HB_BURST];
    uint64_t begin = hb_thread_ns();
    for (uint32_t at = 0; at < config->n; at += config->burst) {
        uint32_t left = config->n - at, n = left < config->burst ? left : config->burst;
        if (config->peer)
            config->peer(config->context, config->address + at, wide, n);
        else
            config->ours(config->context, config->address + at, hop, n);
    }
    return (double)(hb_thread_ns() - begin);
}

/* Once more, for the answers. */
static void hand_out(const hb_bare_lookup_config *config)
{
    for (uint32_t at = 0; at < config->n; at += config->burst) {
        uint32_t left = config->n - at, n = left < config->burst ? left : config->burst;
        if (config->peer)
            config->peer(config->context, config->address + at, config->hop + at, n);
        else
            run_ours(config, at, n);
    }
}

int hb_bare_lookup(const hb_bare_lookup_config *config, hb_bare_nf_result *result)
{
    cpu_set_t before;
    if (!config->n || !config->burst || config->burst > HB_BURST)
        return -1;
    int rc = hb_pin(config->cpu, &before);
    if (!rc)
        rc = hb_bare_passes(run_pass, (void *)config, config->seconds, config->n, result);
    if (!rc)
        hand_out(config);
    hb_unpin(&before);
    return rc;
}
