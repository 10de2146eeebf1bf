/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_match.c: does a packet match a rule? Header first, as that costs least, then the fields,
 * then what looks at the payload. */
#include <string.h>

#include "nids_rules.h"
#include "parse.h"

/* ---- header ---------------------------------------------------------------------------------- */

static inline bool below(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] != b[0] ? a[0] < b[0] : a[1] < b[1];
}

static bool in_addresses(const hb_nids *nids, uint32_t set, const uint64_t address[2])
{
    hb_nids_part part = nids->c.address_set[set];
    const hb_nids_addresses *range = nids->c.addresses + part.first;
    uint32_t low = 0, high = part.count; /* the first range that does not end before it */
    if (!part.count)
        return true;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (below(range[middle].high, address))
            low = middle + 1;
        else
            high = middle;
    }
    return low < part.count && !below(address, range[low].low);
}

static bool in_ports(const hb_nids *nids, uint32_t set, uint16_t port)
{
    hb_nids_part part = nids->c.port_set[set];
    const hb_nids_ports *range = nids->c.ports + part.first;
    for (uint32_t i = 0; i < part.count && range[i].low <= port; i++)
        if (port <= range[i].high)
            return true;
    return !part.count;
}

static bool ends_match(const hb_nids *nids, const hb_nids_rule *r, const hb_nids_packet *p)
{
    return in_ports(nids, r->src_ports, p->src_port) && in_ports(nids, r->dst_ports, p->dst_port) &&
           in_addresses(nids, r->src, p->src) && in_addresses(nids, r->dst, p->dst);
}

static bool ends_match_reversed(const hb_nids *nids, const hb_nids_rule *r, const hb_nids_packet *p)
{
    return in_ports(nids, r->src_ports, p->dst_port) && in_ports(nids, r->dst_ports, p->src_port) &&
           in_addresses(nids, r->src, p->dst) && in_addresses(nids, r->dst, p->src);
}

static bool header_matches(const hb_nids *nids, const hb_nids_rule *r, const hb_nids_packet *p)
{
    if (!r->any_protocol &&
        (!p->has_l4 || (p->protocol != r->protocol[0] && p->protocol != r->protocol[1])))
        return false;
    if ((r->version && r->version != p->version) || (r->flow & p->flow) != r->flow)
        return false;
    if (!r->any_port && !p->has_ports)
        return false;
    return ends_match(nids, r, p) || (r->both && ends_match_reversed(nids, r, p));
}

static bool checks_match(const hb_nids *nids, const hb_nids_rule *r, const hb_nids_packet *p)
{
    const hb_nids_check *check = nids->c.check + r->checks.first;
    for (uint32_t i = 0; i < r->checks.count; i++, check++) {
        uint32_t value;
        if (!hb_nids_field(p, check->field, &value))
            return false;
        value &= check->mask;
        bool inside = value >= check->low && value <= check->high;
        if (inside == (check->negated != 0))
            return false;
    }
    return true;
}

/* ---- places in the payload ------------------------------------------------------------------- */

/* One evaluation. */
typedef struct {
    const hb_nids *nids;
    const uint8_t *payload;
    int64_t size; /* signed, as places in front of the payload come up on the way */
    hb_nids_scratch *scratch;
} hb_run;

#define NOWHERE (-1)

static inline uint8_t lower(uint8_t c)
{
    return (uint8_t)(c - 'A') < 26 ? c | 32 : c;
}

static bool same_nocase(const uint8_t *text, const uint8_t *low, uint32_t length)
{
    uint32_t i = 0;
    while (i < length && lower(text[i]) == low[i])
        i++;
    return i == length;
}

/* First place in from .. to - length at which the content stands, or NOWHERE. */
static int64_t find(const hb_run *run, const hb_nids_step *s, int64_t from, int64_t to)
{
    const uint8_t *content = run->nids->c.bytes + s->data;
    if (to - from < (int64_t)s->length)
        return NOWHERE;
    if (!(s->flags & HB_NIDS_NOCASE)) {
        const uint8_t *found = memmem(run->payload + from, (size_t)(to - from), content, s->length);
        return found ? found - run->payload : NOWHERE;
    }
    for (; from + s->length <= to; from++)
        if (same_nocase(run->payload + from, content, s->length))
            return from;
    return NOWHERE;
}

/* Where a content may lie, from .. to, if the last match ended at `cursor`. */
static void window(const hb_run *run, const hb_nids_step *s, uint32_t cursor, int64_t *from,
                   int64_t *to)
{
    int64_t start = (s->flags & HB_NIDS_RELATIVE ? (int64_t)cursor : 0) + s->start;
    *from = start > 0 ? start : 0;
    *to = run->size;
    if (s->reach != HB_NIDS_ANYWHERE && start + s->reach < run->size)
        *to = start + s->reach;
    if (s->flags & HB_NIDS_AT_END) {
        if (*to < run->size)
            *to = NOWHERE; /* no content fits */
        else if (*from < run->size - (int64_t)s->length)
            *from = run->size - (int64_t)s->length;
    }
}

static uint64_t binary(const uint8_t *p, const hb_nids_step *s)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < s->length; i++)
        value = value << 8 | p[s->flags & HB_NIDS_LITTLE ? s->length - 1 - i : i];
    return value;
}

static uint32_t digit(uint8_t c)
{
    uint8_t tens = (uint8_t)(c - '0'), letter = (uint8_t)(lower(c) - 'a');
    return tens < 10 ? tens : letter < 26 ? letter + 10u : 99;
}

/* As strtoull() reads them, but never a sign. Returns the bytes read, 0 if there is no digit. */
static uint32_t digits(const uint8_t *p, const hb_nids_step *s, uint64_t *value)
{
    uint32_t at = 0, base = s->base, n = s->length;
    while (at < n && (p[at] == ' ' || (p[at] >= 9 && p[at] <= 13)))
        at++;
    bool hex = at + 2 < n && p[at] == '0' && lower(p[at + 1]) == 'x' && digit(p[at + 2]) < 16;
    if (hex && (base == 0 || base == 16)) {
        at += 2;
        base = 16;
    } else if (base == 0) {
        base = at < n && p[at] == '0' ? 8 : 10;
    }
    uint32_t first = at;
    *value = 0;
    for (; at < n && digit(p[at]) < base; at++)
        if (__builtin_mul_overflow(*value, base, value) ||
            __builtin_add_overflow(*value, digit(p[at]), value))
            return 0;
    return at > first ? at : 0;
}

/* The number of byte_test or byte_jump. Returns the bytes read, 0 if it is not there; *at is where
 * it begins. */
static uint32_t number(const hb_run *run, const hb_nids_step *s, uint32_t cursor, int64_t *at,
                       uint64_t *value)
{
    *at = (s->flags & HB_NIDS_RELATIVE ? (int64_t)cursor : 0) + s->start;
    if (*at < 0 || *at + s->length > run->size)
        return 0;
    if (s->flags & HB_NIDS_DIGITS)
        return digits(run->payload + *at, s, value);
    *value = binary(run->payload + *at, s);
    return s->length;
}

static bool byte_test(const hb_run *run, const hb_nids_step *s, uint32_t cursor)
{
    int64_t at;
    uint64_t value;
    if (!number(run, s, cursor, &at, &value))
        return false;
    bool match = ((s->how & HB_NIDS_LESS) && value < s->value) ||
                 ((s->how & HB_NIDS_EQUAL) && value == s->value) ||
                 ((s->how & HB_NIDS_GREATER) && value > s->value) ||
                 ((s->how & HB_NIDS_AND) && (value & s->value)) ||
                 ((s->how & HB_NIDS_XOR) && (value ^ s->value));
    return match != ((s->flags & HB_NIDS_NEGATED) != 0);
}

/* Where to; NOWHERE if the number is not there or leads out of the payload. */
static int64_t byte_jump(const hb_run *run, const hb_nids_step *s, uint32_t cursor)
{
    int64_t at;
    uint64_t value;
    uint32_t read = number(run, s, cursor, &at, &value);
    if (!read || value > UINT32_MAX)
        return NOWHERE;
    int64_t jump = (int64_t)(value * s->multiplier);
    if (s->flags & HB_NIDS_ALIGN)
        jump = (jump + 3) & ~(int64_t)3;
    jump += s->post;
    if (s->how == HB_NIDS_HERE)
        jump += at + read;
    else if (s->how == HB_NIDS_END)
        jump += run->size;
    if (jump < 0)
        return 0;
    return jump < run->size ? jump : NOWHERE;
}

static bool is_data_at(const hb_run *run, const hb_nids_step *s, uint32_t cursor)
{
    bool is = s->flags & HB_NIDS_RELATIVE ? (int64_t)cursor + s->start <= run->size
                                          : s->start < run->size;
    return is != ((s->flags & HB_NIDS_NEGATED) != 0);
}

/* ---- chains ---------------------------------------------------------------------------------- */

static bool follow(hb_run *run, const hb_nids_step *s, const hb_nids_step *end, uint32_t cursor);

/* Each place at which the content stands, until the rest of the chain matches behind one. */
static bool follow_content(hb_run *run, const hb_nids_step *s, const hb_nids_step *end,
                           uint32_t cursor)
{
    int64_t from, to, at;
    window(run, s, cursor, &from, &to);
    if (s->flags & HB_NIDS_NEGATED)
        return find(run, s, from, to) == NOWHERE && follow(run, s + 1, end, cursor);
    if (s->flags & HB_NIDS_NO_CURSOR)
        return find(run, s, from, to) != NOWHERE && follow(run, s + 1, end, cursor);
    while ((at = find(run, s, from, to)) != NOWHERE && run->scratch->tries) {
        if (follow(run, s + 1, end, (uint32_t)at + s->length))
            return true;
        from = at + 1;
    }
    return false;
}

/* Each place at which the expression matches, likewise. To a relative one the payload begins at the
 * cursor. */
static bool follow_pcre(hb_run *run, const hb_nids_step *s, const hb_nids_step *end,
                        uint32_t cursor)
{
    hb_nids_scratch *scratch = run->scratch;
    const hb_regex *regex = run->nids->regex[s->data];
    uint32_t begin = s->flags & HB_NIDS_RELATIVE ? cursor : 0;
    size_t size = (size_t)run->size - begin, first, last;
    for (size_t from = 0; from <= size && scratch->tries;
         from = (first > from ? first : from) + 1) {
        int found =
            hb_regex_match(regex, scratch->regex, run->payload + begin, size, from, &first, &last);
        if (found == HB_REGEX_GAVE_UP)
            scratch->gave_up++;
        if (s->flags & HB_NIDS_NEGATED)
            return found == HB_REGEX_NONE && follow(run, s + 1, end, cursor);
        if (found != HB_REGEX_FOUND)
            return false;
        if (follow(run, s + 1, end, begin + (uint32_t)last))
            return true;
    }
    return false;
}

/* Do the steps from `s` on match, if the last match ended at `cursor`? */
static bool follow(hb_run *run, const hb_nids_step *s, const hb_nids_step *end, uint32_t cursor)
{
    if (s == end)
        return true;
    if (!run->scratch->tries || !--run->scratch->tries)
        return false;
    switch (s->kind) {
    case HB_NIDS_CONTENT:
        return follow_content(run, s, end, cursor);
    case HB_NIDS_PCRE:
        return follow_pcre(run, s, end, cursor);
    case HB_NIDS_IS_DATA_AT:
        return is_data_at(run, s, cursor) && follow(run, s + 1, end, cursor);
    case HB_NIDS_BYTE_TEST:
        return byte_test(run, s, cursor) && follow(run, s + 1, end, cursor);
    case HB_NIDS_BYTE_JUMP: {
        int64_t to = byte_jump(run, s, cursor);
        return to != NOWHERE && follow(run, s + 1, end, (uint32_t)to);
    }
    default:
        return false;
    }
}

bool hb_nids_evaluate(const hb_nids *nids, uint32_t rule, const hb_nids_packet *p,
                      hb_nids_scratch *s)
{
    const hb_nids_rule *r = nids->c.rule + rule;
    if (!header_matches(nids, r, p) || !checks_match(nids, r, p))
        return false;
    hb_run run = {.nids = nids, .payload = p->payload, .size = p->size, .scratch = s};
    s->tries = HB_NIDS_MOST_TRIES;
    const hb_nids_part *chain = nids->c.chain + r->chains.first;
    for (uint32_t i = 0; i < r->chains.count; i++, chain++) {
        const hb_nids_step *step = nids->c.step + chain->first;
        if (!follow(&run, step, step + chain->count, 0)) {
            s->gave_up += !s->tries;
            return false;
        }
    }
    return true;
}

/* ---- for tests and tools --------------------------------------------------------------------- */

uint32_t hb_nids_match(const hb_nids *nids, const uint8_t *packet, uint32_t length, uint32_t flow,
                       uint32_t *rules, uint32_t most)
{
    hb_mbuf m = {.data_len = (uint16_t)length};
    hb_key key;
    hb_nids_packet p = {.flow = flow};
    uint32_t found = 0;
    if (length > UINT16_MAX || hb_parse(packet, length, &m, &key) != HB_REASON_none ||
        !hb_nids_view(&p, packet, &m))
        return 0;
    hb_nids_scratch scratch = {.regex = hb_regex_scratch_new()};
    if (!scratch.regex)
        return 0;
    for (uint32_t rule = 0; rule < nids->c.rules && found < most; rule++)
        if (hb_nids_evaluate(nids, rule, &p, &scratch))
            rules[found++] = rule;
    hb_regex_scratch_free(scratch.regex);
    return found;
}
