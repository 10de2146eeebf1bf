/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec_mb.c: ipsec's engine "ipsec_mb". Framing is the packet function's (ipsec_frame.h);
 * encryption and authentication are jobs of libipsec-mb, which works on many packets at a time.
 *
 *   out   wrap all, IVs of all      ── one job a packet: encrypt, then authenticate
 *   in    find all                  ── one job a packet: authenticate (GCM: decrypt, too)
 *         ICVs are right?           ── one job a packet: decrypt
 *         unwrap all
 *
 * The library reads round keys and HMAC states straight from the table; only GCM has a form of
 * key of its own.
 */
#ifdef HB_HAVE_IPSEC_MB
#include "nf/ipsec_mb.h"

#include <intel-ipsec-mb.h>
#include <stdlib.h>
#include <string.h>
#include <wmmintrin.h>

#include "nf/ipsec.cl"

#define STEP 32 /* packets framed and submitted at a time: what they touch stays in L1 */
#define UNDONE HB_DROP(HB_REASON_bad_result) /* the verdict while the library has it */

/* What the library makes of a GCM key. Owned by the engine; `made_of` is the SA's hash key, so that
 * a new key in the table is noticed. */
typedef struct {
    struct gcm_key_data key;
    uint8_t made_of[16];
    uint32_t rounds;
} gcm_key;

/* A packet of the burst, one line: lines that are written are what framing takes most time for.
 * Offsets are from the packet's first byte, as in hb_esp. */
typedef struct {
    alignas(64) uint8_t *frame;
    uint64_t result;
    uint32_t offset, length; /* of the packet in its frame */
    uint32_t sa, kind, sequence, esp, data, n;
    uint32_t op;      /* HB_ESP_* */
    uint32_t verdict; /* 0 while it is under way */
} packet;

/* More about it, if it is on the way in; the nonce if its SA has GCM. */
typedef struct {
    alignas(64) uint8_t icv[16]; /* computed, to compare */
    uint8_t nonce[16];
    hb_packet p;
    hb_esp e;
} more;

/* An engine's state: written by its lcore. */
typedef struct {
    IMB_MGR *manager;
    gcm_key **gcm; /* [sas]; NULL where the SA had another cipher at the start */
    uint32_t sas;
    uint32_t jobs;  /* filled in, not yet submitted ... */
    uint32_t room;  /* ... of this many */
    uint32_t since; /* submitted since all had come back */
    IMB_JOB *job[STEP];
    packet packets[HB_BURST];
    more more[HB_BURST]; /* of the packets in the same places */
} mb_state;

bool hb_ipsec_mb_usable(void)
{
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.2");
}

/* ---- open and close ----------------------------------------------------------------------------
 */

static mb_state *state_of(hb_nf_seat *seat)
{
    return *(mb_state **)seat->engine_state;
}

static const uint8_t *record(const hb_table *t, uint32_t sa, uint32_t word)
{
    return t->base + 4 * (size_t)(sa + word);
}

static void make_gcm_key(IMB_MGR *m, const hb_table *t, uint32_t sa, gcm_key *key)
{
    const uint8_t *raw = record(t, sa, HB_SA_KEY); /* round keys begin with the key itself */
    key->rounds = HB_SA_ROUNDS(hb_sa_kind(t, sa));
    if (key->rounds == 10)
        IMB_AES128_GCM_PRE(m, raw, &key->key);
    else
        IMB_AES256_GCM_PRE(m, raw, &key->key);
    memcpy(key->made_of, record(t, sa, HB_SA_HASH_KEY), sizeof(key->made_of));
}

static int make_gcm_keys(mb_state *s, const hb_table *t)
{
    for (uint32_t i = 0; i < s->sas; i++) {
        uint32_t sa = hb_sa_of(t, i);
        if (HB_SA_CIPHER(hb_sa_kind(t, sa)) != HB_CIPHER_GCM)
            continue;
        s->gcm[i] = aligned_alloc(64, (sizeof(gcm_key) + 63) / 64 * 64);
        if (!s->gcm[i])
            return -1;
        make_gcm_key(s->manager, t, sa, s->gcm[i]);
    }
    return 0;
}

int hb_ipsec_mb_open(hb_nf_seat *seat)
{
    mb_state *s = aligned_alloc(64, (sizeof(*s) + 63) / 64 * 64);
    *(mb_state **)seat->engine_state = s;
    if (!s)
        return -1;
    s->jobs = s->room = s->since = 0;
    s->sas = hb_table32(&seat->table, HB_SA_COUNT);
    s->gcm = calloc(s->sas + 1, sizeof(gcm_key *));
    s->manager = alloc_mb_mgr(0);
    if (s->gcm && s->manager) {
        IMB_ARCH best;
        init_mb_mgr_auto(s->manager, &best);
        if (imb_get_errno(s->manager) == 0 && make_gcm_keys(s, &seat->table) == 0)
            return 0;
    }
    hb_ipsec_mb_close(seat);
    return -1;
}

void hb_ipsec_mb_close(hb_nf_seat *seat)
{
    mb_state *s = state_of(seat);
    if (!s)
        return;
    for (uint32_t i = 0; s->gcm && i < s->sas; i++) {
        if (s->gcm[i])
            explicit_bzero(s->gcm[i], sizeof(gcm_key));
        free(s->gcm[i]);
    }
    free(s->gcm);
    if (s->manager)
        free_mb_mgr(s->manager);
    explicit_bzero(s->packets, sizeof(s->packets));
    free(s);
    *(mb_state **)seat->engine_state = NULL;
}

/* ---- jobs --------------------------------------------------------------------------------------
 */

static more *more_of(mb_state *s, const packet *k)
{
    return s->more + (k - s->packets);
}

static uint8_t *at(const packet *k, uint32_t offset)
{
    return k->frame + k->offset + offset;
}

/* The packet is under way again. If a job failed or got lost, which none may, its packet is
 * dropped: it is as it came, in the clear. */
static void ended(const IMB_JOB *job)
{
    packet *k = job->user_data;
    if (job->status == IMB_STATUS_COMPLETED && k->verdict == UNDONE)
        k->verdict = 0;
}

static void submit(mb_state *s)
{
    s->since += s->jobs;
    uint32_t done = IMB_SUBMIT_BURST_NOCHECK(s->manager, s->jobs, s->job);
    for (uint32_t i = 0; i < done; i++)
        ended(s->job[i]);
    s->jobs = s->room = 0;
}

/* One by one: IMB_FLUSH_BURST goes by how many jobs there are, which libipsec-mb 1.3 gets wrong
 * when its queue, a ring of IMB_MAX_JOBS, has gone round: some would never be done. */
static void flush(mb_state *s)
{
    if (s->jobs)
        submit(s);
    for (IMB_JOB *job; (job = IMB_FLUSH_JOB(s->manager));)
        ended(job);
    s->since = 0;
}

/* Room for a job. The library hands out whole bursts, in order, so that what is left of one is
 * simply taken again. Its queue is never let get full, for 1.3 then takes it for empty. Jobs leave
 * it in order, and the first of many may be done last. */
static IMB_JOB *next_job(mb_state *s)
{
    if (s->jobs == s->room) {
        if (s->jobs)
            submit(s);
        if (s->since + STEP >= IMB_MAX_JOBS)
            flush(s);
        while (!(s->room = IMB_GET_NEXT_BURST(s->manager, STEP, s->job)))
            flush(s);
    }
    return s->job[s->jobs++];
}

/* A job that does nothing yet. */
static IMB_JOB *job_of(mb_state *s, packet *k)
{
    IMB_JOB *job = next_job(s);
    k->verdict = UNDONE;
    job->user_data = k;
    job->src = at(k, k->esp);
    job->dst = at(k, k->data);
    job->cipher_start_src_offset_in_bytes = k->data - k->esp;
    job->msg_len_to_cipher_in_bytes = k->n;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = k->data - k->esp + k->n;
    job->cipher_mode = IMB_CIPHER_NULL;
    job->hash_alg = IMB_AUTH_NULL;
    return job;
}

static void cbc(IMB_JOB *job, const hb_table *t, const packet *k)
{
    job->cipher_mode = IMB_CIPHER_CBC;
    job->enc_keys = job->dec_keys = record(t, k->sa, HB_SA_KEY);
    job->key_len_in_bytes = (HB_SA_ROUNDS(k->kind) - 6) * 4;
    job->iv = at(k, k->data - 16);
    job->iv_len_in_bytes = 16;
}

static void gcm(IMB_JOB *job, const hb_table *t, const packet *k, const gcm_key *key,
                uint8_t *nonce)
{
    memcpy(nonce, record(t, k->sa, HB_SA_SALT), 4);
    memcpy(nonce + 4, at(k, k->data - 8), 8);
    job->cipher_mode = IMB_CIPHER_GCM;
    job->hash_alg = IMB_AUTH_AES_GMAC;
    job->enc_keys = job->dec_keys = &key->key;
    job->key_len_in_bytes = (HB_SA_ROUNDS(k->kind) - 6) * 4;
    job->iv = nonce;
    job->iv_len_in_bytes = 12;
    job->u.GCM.aad = at(k, k->esp);
    job->u.GCM.aad_len_in_bytes = 8;
    job->hash_start_src_offset_in_bytes = k->data - k->esp;
    job->msg_len_to_hash_in_bytes = k->n;
}

static void hmac(IMB_JOB *job, const hb_table *t, const packet *k)
{
    uint32_t auth = HB_SA_AUTH(k->kind);
    if (auth == HB_AUTH_NONE)
        return;
    job->hash_alg = auth == HB_AUTH_SHA1 ? IMB_AUTH_HMAC_SHA_1 : IMB_AUTH_HMAC_SHA_256;
    job->u.HMAC._hashed_auth_key_xor_ipad = record(t, k->sa, HB_SA_INNER);
    job->u.HMAC._hashed_auth_key_xor_opad = record(t, k->sa, HB_SA_OUTER);
}

/* The key of an SA with GCM, as it is in the table now; NULL if there is no place for one. */
static gcm_key *gcm_key_of(mb_state *s, const hb_table *t, uint32_t sa)
{
    uint32_t index = (sa - HB_SA_FIRST / 4) / HB_SA_WORDS;
    gcm_key *key = index < s->sas ? s->gcm[index] : NULL;
    if (key && (memcmp(key->made_of, record(t, sa, HB_SA_HASH_KEY), sizeof(key->made_of)) != 0 ||
                key->rounds != HB_SA_ROUNDS(hb_sa_kind(t, sa))))
        make_gcm_key(s->manager, t, sa, key);
    return key;
}

static void job_out(mb_state *s, const hb_table *t, packet *k)
{
    uint32_t cipher = HB_SA_CIPHER(k->kind);
    IMB_JOB *job = job_of(s, k);
    job->cipher_direction = IMB_DIR_ENCRYPT;
    job->chain_order = IMB_ORDER_CIPHER_HASH;
    job->auth_tag_output = at(k, k->data + k->n);
    job->auth_tag_output_len_in_bytes = hb_sa_icv_bytes(k->kind);
    if (cipher == HB_CIPHER_GCM) {
        gcm(job, t, k, gcm_key_of(s, t, k->sa), more_of(s, k)->nonce);
    } else {
        if (cipher == HB_CIPHER_CBC)
            cbc(job, t, k);
        hmac(job, t, k);
    }
}

/* GCM decrypts on the way. */
static void job_check(mb_state *s, const hb_table *t, packet *k, IMB_CIPHER_DIRECTION direction)
{
    IMB_JOB *job = job_of(s, k);
    job->cipher_direction = direction;
    job->chain_order = direction == IMB_DIR_DECRYPT ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
    job->auth_tag_output = more_of(s, k)->icv;
    job->auth_tag_output_len_in_bytes = hb_sa_icv_bytes(k->kind);
    if (HB_SA_CIPHER(k->kind) == HB_CIPHER_GCM)
        gcm(job, t, k, gcm_key_of(s, t, k->sa), more_of(s, k)->nonce);
    else
        hmac(job, t, k);
}

static void job_decrypt(mb_state *s, const hb_table *t, packet *k)
{
    IMB_JOB *job = job_of(s, k);
    job->cipher_direction = IMB_DIR_DECRYPT;
    job->chain_order = IMB_ORDER_CIPHER_HASH;
    cbc(job, t, k);
}

/* ---- the burst ---------------------------------------------------------------------------------
 */

/* Is the packet under way, in this direction? */
static bool under_way(const packet *k, uint32_t op)
{
    return k->op == op && !k->verdict;
}

#define AT_ONCE 4 /* AES instructions take that long to give a result */

/* hb_cbc_iv() of some packets by AES instructions. */
__attribute__((target("aes,sse4.1"))) static void write_some_ivs(const hb_table *t,
                                                                 packet *const *k)
{
    const __m128i *keys[AT_ONCE];
    __m128i s[AT_ONCE];
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        uint64_t salt, high = (uint64_t)__builtin_bswap32(k[i]->sequence) << 32;
        memcpy(&salt, record(t, k[i]->sa, HB_SA_IV_SALT), sizeof(salt));
        keys[i] = (const __m128i *)record(t, k[i]->sa, HB_SA_IV_KEY);
        s[i] = _mm_xor_si128(_mm_set_epi64x((int64_t)high, (int64_t)salt), keys[i][0]);
    }
    for (uint32_t round = 1; round < 10; round++)
        for (uint32_t i = 0; i < AT_ONCE; i++)
            s[i] = _mm_aesenc_si128(s[i], keys[i][round]);
    for (uint32_t i = 0; i < AT_ONCE; i++)
        _mm_storeu_si128((__m128i *)at(k[i], k[i]->data - 16),
                         _mm_aesenclast_si128(s[i], keys[i][10]));
}

/* IVs of all packets on the way out. */
static void write_ivs(mb_state *s, const hb_table *t, uint32_t from, uint32_t to)
{
    packet *cbc[STEP + AT_ONCE];
    uint32_t found = 0;
    for (uint32_t i = from; i < to; i++) {
        packet *k = s->packets + i;
        if (!under_way(k, HB_ESP_ENCAPSULATE))
            continue;
        if (HB_SA_CIPHER(k->kind) == HB_CIPHER_CBC) {
            cbc[found++] = k;
        } else if (HB_SA_CIPHER(k->kind) == HB_CIPHER_GCM) {
            uint64_t iv = (uint64_t)__builtin_bswap32(k->sequence) << 32;
            memcpy(at(k, k->data - 8), &iv, sizeof(iv));
        }
    }
    for (uint32_t i = found; i % AT_ONCE; i++)
        cbc[i] = cbc[found - 1]; /* once more, for nothing */
    for (uint32_t i = 0; i < found; i += AT_ONCE)
        write_some_ivs(t, cbc + i);
}

/* Frames a packet for the way out. `flatten`: packet and layout stay in registers until the end,
 * when only what jobs need is stored; a struct that is copied right after it was written word by
 * word stalls for its stores. */
__attribute__((flatten)) static void wrap(const hb_nf_burst *b, uint32_t i, uint32_t sa, packet *k)
{
    hb_packet p = hb_packet_of(b, i);
    hb_esp e = {.sequence = (uint32_t)b->arg[i], .sa = sa};
    uint32_t verdict = hb_esp_wrap(&p, b->table, &e);
    k->frame = p.frame, k->offset = p.offset, k->length = p.length;
    k->sa = sa, k->kind = e.kind, k->sequence = e.sequence;
    k->esp = e.esp, k->data = e.data, k->n = e.n;
    k->verdict = verdict == HB_PASS ? 0 : verdict;
}

/* hb_esp_wrap() of the commonest packet, IPv4 behind 14 bytes of Ethernet into a tunnel without
 * UDP: one check of the room instead of one for each access. False: it is another, or has no room;
 * nothing has changed. */
static bool wrap_ipv4(const hb_nf_burst *b, uint32_t i, uint32_t sa_word, packet *k)
{
    const hb_mbuf *m = hb_header(b->arena, b->handles[i]);
    const hb_block sa = hb_table_block(b->table, sa_word / 4);
    const uint8_t *ip = hb_data(b->arena, m) + 14;
    if (m->l3 != 14 || m->data_len < 14 + 20 || !HB_SA_TUNNEL(sa.a) || HB_SA_UDP(sa.a))
        return false;
    uint32_t header = (ip[0] & 15) * 4, total = (uint32_t)ip[2] << 8 | ip[3];
    uint32_t head = hb_sa_head_bytes(sa.a), pad = hb_sa_padding(sa.a, total);
    uint32_t tail = pad + 2 + hb_sa_icv_bytes(sa.a);
    if (ip[0] >> 4 != 4 || header < 20 || total < header || 14 + total > m->data_len ||
        head > b->head || 14 + total + tail > m->data_len + b->tail)
        return false;

    uint8_t *frame = hb_frame(b->arena, m);
    uint32_t offset = m->data_off - head, data = 14 + head;
    hb_esp e = {.sa = sa_word, .kind = sa.a, .sequence = (uint32_t)b->arg[i]};
    hb_block esp = {hb_swap32(sa.c), hb_swap32(sa.d), hb_swap32(sa.b), hb_swap32(e.sequence)};
    uint32_t tos = ip[1], df = (uint32_t)(ip[6] & 0x40) << 8;
    uint64_t first, last; /* of the Ethernet header: two that overlap */
    memcpy(&first, ip - 14, 8);
    memcpy(&last, ip - 8, 8);
    memcpy(frame + offset, &first, 8);
    memcpy(frame + offset + 6, &last, 8);
    hb_store_block(frame, offset + 14, hb_outer_header(&e, sa, head + total + tail, tos, df));
    hb_store_block(frame, offset + 14 + 12, esp); /* its first word is the source, once more */
    if (tail >= 16)                               /* what is too much, trailer and ICV write over */
        hb_store_block(frame, offset + data + total, (hb_block)HB_PADDING);
    else
        for (uint32_t j = 0; j < pad; j++)
            frame[offset + data + total + j] = (uint8_t)(j + 1);
    frame[offset + data + total + pad] = (uint8_t)pad;
    frame[offset + data + total + pad + 1] = HB_PROTOCOL_IPV4;

    k->frame = frame, k->offset = offset, k->length = data + total + tail;
    k->sa = sa_word, k->kind = sa.a, k->sequence = e.sequence;
    k->esp = 14 + 20, k->data = data, k->n = total + pad + 2;
    k->verdict = 0;
    return true;
}

static void find(mb_state *s, const hb_nf_burst *b, uint32_t i, uint32_t sa)
{
    packet *k = s->packets + i;
    more *m = s->more + i;
    m->p = hb_packet_of(b, i);
    m->e.sa = sa;
    uint32_t verdict = hb_esp_find(&m->p, b->table, &m->e);
    k->frame = m->p.frame, k->offset = m->p.offset, k->length = m->p.length;
    k->sa = sa, k->kind = m->e.kind, k->sequence = m->e.sequence;
    k->esp = m->e.esp, k->data = m->e.data, k->n = m->e.n;
    k->verdict = verdict == HB_PASS ? 0 : verdict;
}

static void other(mb_state *s, const hb_nf_burst *b, uint32_t i)
{
    packet *k = s->packets + i;
    hb_packet p = hb_packet_of(b, i);
    k->result = 0;
    k->verdict = hb_nf_ipsec(&p, b->table, b->arg ? b->arg[i] : 0, &k->result);
    k->offset = p.offset, k->length = p.length;
    k->op = HB_ESP_BYPASS; /* nothing left to do */
}

/* What framing will touch: first and last lines of a packet some places ahead, and the header of
 * one further on. */
static void prefetch(const hb_nf_burst *b, uint32_t i)
{
    if (i + 16 < b->n)
        __builtin_prefetch(hb_header(b->arena, b->handles[i + 16]));
    if (i + 8 >= b->n)
        return;
    const hb_mbuf *m = hb_header(b->arena, b->handles[i + 8]);
    const uint8_t *bytes = hb_data(b->arena, m);
    __builtin_prefetch(bytes - 48, 1);
    __builtin_prefetch(bytes + 16, 1);
    __builtin_prefetch(bytes + m->data_len, 1);
}

/* Can jobs do it? */
static bool for_jobs(mb_state *s, const hb_table *t, uint32_t op, uint32_t sa)
{
    if ((op != HB_ESP_ENCAPSULATE && op != HB_ESP_DECAPSULATE) || !sa)
        return false;
    return HB_SA_CIPHER(hb_sa_kind(t, sa)) != HB_CIPHER_GCM || gcm_key_of(s, t, sa);
}

/* Takes packet i of the burst: all of the work on it that is not cryptography. */
static void begin(mb_state *s, const hb_nf_burst *b, uint32_t i)
{
    packet *k = s->packets + i;
    uint64_t arg = b->arg ? b->arg[i] : 0;
    uint32_t sa = hb_sa_of(b->table, (uint32_t)(arg >> 32) & 0xffff);
    prefetch(b, i);
    k->op = (uint32_t)(arg >> 48) & 255;
    k->result = 0;
    if (!for_jobs(s, b->table, k->op, sa))
        other(s, b, i);
    else if (k->op == HB_ESP_DECAPSULATE)
        find(s, b, i, sa);
    else if (!wrap_ipv4(b, i, sa, k))
        wrap(b, i, sa, k);
}

/* The same time wherever the first difference is. */
static bool icv_is_right(const packet *k, const uint8_t *icv)
{
    const uint8_t *received = at(k, k->data + k->n);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < hb_sa_icv_bytes(k->kind); i++)
        wrong |= received[i] ^ icv[i];
    return !wrong;
}

/* Verdicts on ICVs. What GCM decrypted in vain it encrypts again: dropped packets are whole. */
static void check(mb_state *s, const hb_table *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        packet *k = s->packets + i;
        if (!under_way(k, HB_ESP_DECAPSULATE) || icv_is_right(k, s->more[i].icv))
            continue;
        if (HB_SA_CIPHER(k->kind) == HB_CIPHER_GCM)
            job_check(s, t, k, IMB_DIR_ENCRYPT);
        k->verdict = HB_DROP(HB_REASON_bad_icv);
    }
    flush(s);
}

static void decapsulate(mb_state *s, const hb_table *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (under_way(s->packets + i, HB_ESP_DECAPSULATE))
            job_check(s, t, s->packets + i, IMB_DIR_DECRYPT);
    flush(s);
    check(s, t, n);
    for (uint32_t i = 0; i < n; i++) {
        packet *k = s->packets + i;
        if (under_way(k, HB_ESP_DECAPSULATE) && HB_SA_CIPHER(k->kind) == HB_CIPHER_CBC)
            job_decrypt(s, t, k);
    }
    flush(s);
}

/* Whoever still is under way has come through. */
static void conclude(mb_state *s, const hb_nf_burst *b, uint32_t i)
{
    packet *k = s->packets + i;
    more *m = s->more + i;
    k->result = HB_ESP_ARG(k->op, b->arg[i] >> 32 & 0xffff, k->sequence);
    k->verdict = HB_PASS;
    if (k->op == HB_ESP_DECAPSULATE) {
        k->verdict = hb_esp_unwrap(&m->p, &m->e);
        k->offset = m->p.offset, k->length = m->p.length;
    }
}

static void end(mb_state *s, const hb_nf_burst *b, uint32_t i)
{
    packet *k = s->packets + i;
    const hb_mbuf *m = hb_header(b->arena, b->handles[i]);
    hb_packet where = {.offset = m->data_off, .length = m->data_len};
    if (!k->verdict)
        conclude(s, b, i);
    if (b->result)
        b->result[i] = k->result;
    if (k->verdict == HB_PASS) {
        if (k->offset == m->data_off && k->length == m->data_len)
            return;
        where.offset = k->offset, where.length = k->length;
    }
    hb_answer(b->answers, i, &where, k->verdict, k->result);
}

void hb_ipsec_mb_run(hb_nf_seat *seat, const hb_nf_burst *b)
{
    mb_state *s = state_of(seat);
    uint32_t in = 0;
    for (uint32_t from = 0; from < b->n; from += STEP) {
        uint32_t to = from + STEP < b->n ? from + STEP : b->n;
        for (uint32_t i = from; i < to; i++) {
            begin(s, b, i);
            in += s->packets[i].op == HB_ESP_DECAPSULATE;
        }
        write_ivs(s, b->table, from, to);
        for (uint32_t i = from; i < to; i++)
            if (under_way(s->packets + i, HB_ESP_ENCAPSULATE))
                job_out(s, b->table, s->packets + i);
        if (s->jobs)
            submit(s);
    }
    flush(s);
    if (in)
        decapsulate(s, b->table, b->n);
    for (uint32_t i = 0; i < b->n; i++)
        end(s, b, i);
}

#endif
