/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_regex.h: regular expressions of rules, by PCRE2 with its just-in-time compiler. Built
 * without the library there is none, and rules with pcre are skipped when they are read. */
#ifndef HB_NIDS_REGEX_H
#define HB_NIDS_REGEX_H
#include <stddef.h>
#include <stdint.h>

/* Steps that a match may take before it is given up: Suricata's pcre.match-limit. */
#define HB_REGEX_LIMIT 3500

typedef struct hb_regex hb_regex;                 /* compiled; read-only, shared by all lcores */
typedef struct hb_regex_scratch hb_regex_scratch; /* what a match needs besides, for one lcore */

/* `flags` are HB_NIDS_REGEX_*. NULL: it is wrong at byte *at, or there is no library; says why. */
hb_regex *hb_regex_new(const uint8_t *regex, uint32_t length, uint32_t flags, char *error,
                       size_t size, uint32_t *at);
void hb_regex_free(hb_regex *regex);
hb_regex_scratch *hb_regex_scratch_new(void);
void hb_regex_scratch_free(hb_regex_scratch *scratch);

#define HB_REGEX_NONE 0
#define HB_REGEX_FOUND 1
#define HB_REGEX_GAVE_UP 2

/* The first match in text[from .. size-1]; it is [*first, *end). Allocates nothing. */
int hb_regex_match(const hb_regex *regex, hb_regex_scratch *scratch, const uint8_t *text,
                   size_t size, size_t from, size_t *first, size_t *end);
#endif
