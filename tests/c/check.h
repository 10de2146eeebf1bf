/* SPDX-License-Identifier: BSD-3-Clause */
/* check.h: what C tests say when something is not as it should be. */
#ifndef HB_CHECK_H
#define HB_CHECK_H
#include <stdio.h>

static int failures;

/* Go on after a failure: the next one may explain it. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition);         \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

#define CHECK_EQUAL(have, want)                                                                    \
    do {                                                                                           \
        long long have_ = (long long)(have), want_ = (long long)(want);                            \
        if (have_ != want_) {                                                                      \
            printf("%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, #have,       \
                   have_, want_);                                                                  \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

#endif
