/* SPDX-License-Identifier: BSD-3-Clause */
#include "nids_regex.h"

#include <stdio.h>
#include <stdlib.h>

#include "nids_api.h"

#ifdef HB_HAVE_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define JIT_STACK_BYTES (256 * 1024)

struct hb_regex {
    pcre2_code *code;
};

struct hb_regex_scratch {
    pcre2_match_data *match; /* with room for where the whole match lies, and no group */
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static uint32_t options_of(uint32_t flags)
{
    static const struct {
        uint32_t flag, option;
    } known[] = {
        {HB_NIDS_REGEX_CASELESS, PCRE2_CASELESS}, {HB_NIDS_REGEX_MULTILINE, PCRE2_MULTILINE},
        {HB_NIDS_REGEX_DOTALL, PCRE2_DOTALL},     {HB_NIDS_REGEX_EXTENDED, PCRE2_EXTENDED},
        {HB_NIDS_REGEX_ANCHORED, PCRE2_ANCHORED}, {HB_NIDS_REGEX_DOLLAR_END, PCRE2_DOLLAR_ENDONLY},
        {HB_NIDS_REGEX_UNGREEDY, PCRE2_UNGREEDY}};
    uint32_t options = PCRE2_NEVER_UTF; /* payloads are bytes, whatever an expression says */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (flags & known[i].flag)
            options |= known[i].option;
    return options;
}

hb_regex *hb_regex_new(const uint8_t *regex, uint32_t length, uint32_t flags, char *error,
                       size_t size, uint32_t *at)
{
    int code;
    size_t where;
    hb_regex *made = calloc(1, sizeof *made);
    snprintf(error, size, "out of memory");
    if (!made)
        return NULL;
    made->code = pcre2_compile(regex, length, options_of(flags), &code, &where, NULL);
    *at = (uint32_t)where;
    if (!made->code) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(code, text, sizeof text);
        snprintf(error, size, "%s", (const char *)text);
        hb_regex_free(made);
        return NULL;
    }
    /* where the machine allows no JIT, pcre2_match() interprets */
    (void)pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE);
    return made;
}

void hb_regex_free(hb_regex *regex)
{
    if (regex)
        pcre2_code_free(regex->code);
    free(regex);
}

hb_regex_scratch *hb_regex_scratch_new(void)
{
    hb_regex_scratch *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->match = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    s->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES, NULL);
    if (!s->match || !s->context || !s->stack) {
        hb_regex_scratch_free(s);
        return NULL;
    }
    pcre2_set_match_limit(s->context, HB_REGEX_LIMIT);
    pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return s;
}

void hb_regex_scratch_free(hb_regex_scratch *scratch)
{
    if (!scratch)
        return;
    pcre2_match_data_free(scratch->match);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    free(scratch);
}

int hb_regex_match(const hb_regex *regex, hb_regex_scratch *scratch, const uint8_t *text,
                   size_t size, size_t from, size_t *first, size_t *end)
{
    int found = pcre2_match(regex->code, text, size, from, 0, scratch->match, scratch->context);
    if (found < 0)
        return found == PCRE2_ERROR_NOMATCH ? HB_REGEX_NONE : HB_REGEX_GAVE_UP;
    const size_t *where = pcre2_get_ovector_pointer(scratch->match);
    *first = where[0] < where[1] ? where[0] : where[1]; /* \K in a lookahead turns them round */
    *end = where[1];
    return HB_REGEX_FOUND;
}

#else

struct hb_regex_scratch {
    char nothing;
};

hb_regex *hb_regex_new(const uint8_t *regex, uint32_t length, uint32_t flags, char *error,
                       size_t size, uint32_t *at)
{
    (void)regex, (void)length, (void)flags;
    snprintf(error, size, "built without libpcre2");
    *at = 0;
    return NULL;
}

void hb_regex_free(hb_regex *regex)
{
    (void)regex;
}

hb_regex_scratch *hb_regex_scratch_new(void)
{
    return calloc(1, sizeof(hb_regex_scratch));
}

void hb_regex_scratch_free(hb_regex_scratch *scratch)
{
    free(scratch);
}

int hb_regex_match(const hb_regex *regex, hb_regex_scratch *scratch, const uint8_t *text,
                   size_t size, size_t from, size_t *first, size_t *end)
{
    (void)regex, (void)scratch, (void)text, (void)size, (void)from;
    *first = *end = 0;
    return HB_REGEX_NONE;
}
#endif
