/* Work that computes: hashing, sorting, a matrix, JSON. Each returns something that
 * depends on all of it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(name)))

static uint32_t seed;
static uint32_t next(void) { return seed = seed * 1664525u + 1013904223u; }

static uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* The compression function of SHA-256 (FIPS 180-4) over n blocks. */
EXPORT("hash") uint32_t hash(int32_t n) {
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}, w[64];
    seed = 1;
    while (n-- > 0) {
        for (int i = 0; i < 16; i++) w[i] = next();
        for (int i = 16; i < 64; i++) {
            uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[i - 7] + (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
        }
        uint32_t v[8];
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t s1 = rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25), ch = (v[4] & v[5]) ^ (~v[4] & v[6]);
            uint32_t t1 = v[7] + s1 + ch + k[i] + w[i];
            uint32_t s0 = rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22), maj = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += t1;
            v[0] = t1 + s0 + maj;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
    return h[0];
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

EXPORT("sort") uint32_t sort(int32_t n) {
    uint32_t *v = malloc((size_t)n * sizeof *v), sum = 0;
    if (!v) return 0;
    seed = 2;
    for (int32_t i = 0; i < n; i++) v[i] = next();
    qsort(v, (size_t)n, sizeof *v, compare);
    for (int32_t i = 0; i < n; i += 97) sum = sum * 31 + v[i];
    free(v);
    return sum;
}

EXPORT("matrix") uint32_t matrix(int32_t n) {
    double *a = malloc(3 * sizeof *a * (size_t)n * (size_t)n);
    if (!a) return 0;
    double *b = a + n * n, *c = b + n * n, sum = 0;
    for (int32_t i = 0; i < n * n; i++) a[i] = i % 7, b[i] = i % 5, c[i] = 0;
    for (int32_t i = 0; i < n; i++)
        for (int32_t l = 0; l < n; l++)
            for (int32_t j = 0; j < n; j++) c[i * n + j] += a[i * n + l] * b[l * n + j];
    for (int32_t i = 0; i < n * n; i++) sum += c[i];
    free(a);
    return (uint32_t)sum;
}

/* Writes n objects as JSON, then reads them again with a small recursive parser. */
static char text[1 << 20];
static const char *at;

static uint32_t value(void) {
    uint32_t sum = 0;
    switch (*at) {
    case '{':
    case '[':
        for (char close = *at++ == '{' ? '}' : ']'; *at != close;) {
            sum = sum * 31 + value();
            if (*at == ':' || *at == ',') at++;
        }
        at++;
        return sum;
    case '"':
        for (at++; *at != '"'; at++) sum = sum * 31 + (unsigned char)*at;
        at++;
        return sum;
    default:
        for (; *at >= '0' && *at <= '9'; at++) sum = sum * 10 + (uint32_t)(*at - '0');
        return sum;
    }
}

static char *put(char *p, const char *s) {
    while (*s) *p++ = *s++;
    return p;
}

static char *number(char *p, uint32_t v) {
    char digits[10];
    int n = 0;
    do digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n) *p++ = digits[--n];
    return p;
}

EXPORT("json") uint32_t json(int32_t n) {
    char *p = put(text, "[");
    seed = 3;
    for (int32_t i = 0; i < n && p - text < (long)sizeof text - 128; i++) {
        p = number(put(i ? put(p, ",") : p, "{\"id\":"), next());
        p = number(put(p, ",\"name\":\"somebody\",\"tags\":[\"a\",\"bc\",\"def\"],\"size\":"), next() >> 8);
        p = put(p, "}");
    }
    *put(p, "]") = 0;
    at = text;
    return value();
}
