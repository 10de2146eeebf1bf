/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_rules.c: takes the compiled rules over from Python and compiles their regular expressions.
 */
#include "nids_seat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORTS 65536

/* ---- regular expressions --------------------------------------------------------------------- */

int hb_nids_check_regex(const uint8_t *regex, uint32_t length, uint32_t flags, char *error,
                        size_t size, uint32_t *at)
{
    hb_regex *compiled = hb_regex_new(regex, length, flags, error, size, at);
    hb_regex_free(compiled);
    return compiled ? 0 : -1;
}

static bool compile_all(hb_nids *nids, char *error, size_t size)
{
    const hb_nids_config *c = &nids->c;
    for (uint32_t i = 0; i < c->regexes; i++) {
        const hb_nids_regex *r = c->regex + i;
        uint32_t at;
        nids->regex[i] = hb_regex_new(c->bytes + r->at, r->length, r->flags, error, size, &at);
        if (!nids->regex[i])
            return false;
    }
    return true;
}

/* ---- taking over ----------------------------------------------------------------------------- */

#define MOST_BLOCKS 24

/* A copy that hb_nids_free() frees; NULL if there is nothing to copy or no memory. */
static const void *keep(hb_nids *nids, const void *from, size_t bytes, bool *failed)
{
    if (!from || !bytes)
        return NULL;
    void *copy = malloc(bytes);
    if (!copy || nids->blocks == MOST_BLOCKS) {
        free(copy);
        *failed = true;
        return NULL;
    }
    nids->memory[nids->blocks++] = copy;
    return memcpy(copy, from, bytes);
}

#define KEEP(field, count)                                                                         \
    c->field = keep(nids, c->field, (size_t)(count) * sizeof *c->field, &failed)

static bool take_over(hb_nids *nids)
{
    hb_nids_config *c = &nids->c;
    bool failed = false;
    KEEP(rule, c->rules);
    KEEP(check, c->checks);
    KEEP(chain, c->chains);
    KEEP(step, c->steps);
    KEEP(regex, c->regexes);
    KEEP(bytes, c->nb_bytes);
    KEEP(address_set, c->address_sets);
    KEEP(addresses, c->nb_addresses);
    KEEP(port_set, c->port_sets);
    KEEP(ports, c->nb_ports);
    KEEP(list, c->lists);
    KEEP(of_pattern, c->patterns);
    KEEP(port_list, c->port_lists);
    for (int i = 0; i < 4; i++)
        KEEP(by_port[i / 2][i % 2], PORTS);
    return !failed;
}

hb_nids *hb_nids_new(const hb_nids_config *config, char *error, size_t size)
{
    snprintf(error, size, "out of memory");
    hb_nids *nids = calloc(1, sizeof *nids);
    if (!nids)
        return NULL;
    nids->c = *config;
    nids->memory = calloc(MOST_BLOCKS, sizeof *nids->memory);
    nids->regex = calloc(config->regexes + 1, sizeof *nids->regex);
    if (!nids->memory || !nids->regex || !take_over(nids) || !compile_all(nids, error, size)) {
        hb_nids_free(nids);
        return NULL;
    }
    return nids;
}

void hb_nids_free(hb_nids *nids)
{
    if (!nids)
        return;
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++)
        hb_nids_seat_free(nids->seat[i]);
    for (uint32_t i = 0; nids->regex && i < nids->c.regexes; i++)
        hb_regex_free(nids->regex[i]);
    for (uint32_t i = 0; i < nids->blocks; i++)
        free(nids->memory[i]);
    free(nids->memory);
    free(nids->regex);
    free(nids);
}
