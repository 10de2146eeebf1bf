/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_rules.c: takes the compiled rules over from Python and compiles their regular expressions. */
#include "nids_rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORTS 65536
#define JIT_STACK_BYTES (256 * 1024)

/* ---- regular expressions --------------------------------------------------------------------- */

static uint32_t options_of(uint32_t flags)
{
    static const struct {
        uint32_t flag, option;
    } known[] = {{HB_NIDS_REGEX_CASELESS, PCRE2_CASELESS},
                 {HB_NIDS_REGEX_MULTILINE, PCRE2_MULTILINE},
                 {HB_NIDS_REGEX_DOTALL, PCRE2_DOTALL},
                 {HB_NIDS_REGEX_EXTENDED, PCRE2_EXTENDED},
                 {HB_NIDS_REGEX_ANCHORED, PCRE2_ANCHORED},
                 {HB_NIDS_REGEX_DOLLAR_END, PCRE2_DOLLAR_ENDONLY},
                 {HB_NIDS_REGEX_UNGREEDY, PCRE2_UNGREEDY}};
    uint32_t options = PCRE2_NEVER_UTF; /* payloads are bytes, whatever an expression says */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (flags & known[i].flag)
            options |= known[i].option;
    return options;
}

static pcre2_code *compile(const uint8_t *regex, uint32_t length, uint32_t flags, char *error,
                           size_t size, uint32_t *at)
{
    int code;
    size_t where;
    pcre2_code *compiled = pcre2_compile(regex, length, options_of(flags), &code, &where, NULL);
    *at = (uint32_t)where;
    if (!compiled) {
        PCRE2_UCHAR text[256] = "";
        pcre2_get_error_message(code, text, sizeof text);
        snprintf(error, size, "%s", (const char *)text);
        return NULL;
    }
    /* where the machine allows no JIT, pcre2_match() interprets */
    (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
    return compiled;
}

int hb_nids_check_regex(const uint8_t *regex, uint32_t length, uint32_t flags, char *error,
                        size_t size, uint32_t *at)
{
    pcre2_code *compiled = compile(regex, length, flags, error, size, at);
    pcre2_code_free(compiled);
    return compiled ? 0 : -1;
}

int hb_nids_scratch_open(hb_nids_scratch *s)
{
    memset(s, 0, sizeof *s);
    s->match = pcre2_match_data_create(1, NULL); /* only where the whole match lies */
    s->context = pcre2_match_context_create(NULL);
    s->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES, NULL);
    if (!s->match || !s->context || !s->stack) {
        hb_nids_scratch_close(s);
        return -1;
    }
    pcre2_set_match_limit(s->context, HB_NIDS_PCRE_LIMIT);
    pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return 0;
}

void hb_nids_scratch_close(hb_nids_scratch *s)
{
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    memset(s, 0, sizeof *s);
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

static bool compile_all(hb_nids *nids, char *error, size_t size)
{
    const hb_nids_config *c = &nids->c;
    for (uint32_t i = 0; i < c->regexes; i++) {
        const hb_nids_regex *r = c->regex + i;
        uint32_t at;
        nids->code[i] = compile(c->bytes + r->at, r->length, r->flags, error, size, &at);
        if (!nids->code[i])
            return false;
    }
    return true;
}

hb_nids *hb_nids_new(const hb_nids_config *config, char *error, size_t size)
{
    snprintf(error, size, "out of memory");
    hb_nids *nids = calloc(1, sizeof *nids);
    if (!nids)
        return NULL;
    nids->c = *config;
    nids->memory = calloc(MOST_BLOCKS, sizeof *nids->memory);
    nids->code = calloc(config->regexes + 1, sizeof *nids->code);
    if (!nids->memory || !nids->code || !take_over(nids) || !compile_all(nids, error, size)) {
        hb_nids_free(nids);
        return NULL;
    }
    return nids;
}

void hb_nids_free(hb_nids *nids)
{
    if (!nids)
        return;
    for (uint32_t i = 0; nids->code && i < nids->c.regexes; i++)
        pcre2_code_free(nids->code[i]);
    for (uint32_t i = 0; i < nids->blocks; i++)
        free(nids->memory[i]);
    free(nids->memory);
    free(nids->code);
    free(nids);
}
