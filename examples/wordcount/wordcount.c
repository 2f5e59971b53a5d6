#include "casemate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOP = 5, MAX_WORD = 48 };

/* A word of the text, in lower case, and how often it came. */
typedef struct {
    char text[MAX_WORD + 1];
    unsigned count;
    size_t first; /* where it came first: the order among equals */
} word;

/* A hash table of words with open addressing; capacity is a power of two. */
typedef struct {
    word *slots;
    size_t capacity, used;
} table;

static size_t hash(const char *s) { /* FNV-1a */
    size_t h = 2166136261u;
    for (; *s != '\0'; s++) {
        h = (h ^ (unsigned char)*s) * 16777619u;
    }
    return h;
}

static word *slot(const table *t, const char *text) {
    size_t i = hash(text) & (t->capacity - 1);
    while (t->slots[i].count != 0 && strcmp(t->slots[i].text, text) != 0) {
        i = (i + 1) & (t->capacity - 1);
    }
    return &t->slots[i];
}

static int grow(table *t) {
    table larger = {.capacity = t->capacity == 0 ? 256 : t->capacity * 2, .used = t->used};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (larger.slots == NULL) {
        return -1;
    }
    for (size_t i = 0; i < t->capacity; i++) {
        if (t->slots[i].count != 0) {
            *slot(&larger, t->slots[i].text) = t->slots[i];
        }
    }
    free(t->slots);
    *t = larger;
    return 0;
}

static int count(table *t, const char *text, size_t at) {
    if (t->used * 2 >= t->capacity && grow(t) != 0) {
        return -1;
    }
    word *w = slot(t, text);
    if (w->count++ == 0) {
        strcpy(w->text, text); /* both hold MAX_WORD + 1 */
        w->first = at;
        t->used++;
    }
    return 0;
}

static int by_count(const void *a, const void *b) {
    const word *x = a, *y = b;
    if (x->count != y->count) {
        return x->count < y->count ? 1 : -1;
    }
    return x->first < y->first ? -1 : x->first > y->first;
}

/* The length of the UTF-8 sequence at p, or 0 when it is malformed (RFC 3629). */
static size_t sequence(const unsigned char *p, size_t left) {
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (n > left) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if (n > 2 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))) {
        return 0; /* too long a form, half of a surrogate pair, out of range */
    }
    return n;
}

/* Letters, digits, apostrophes and everything beyond ASCII make up words. */
static int in_word(unsigned char c) {
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '\'';
}

static int answer_json(int status, const char *format, ...) {
    char body[1024];
    va_list values;
    va_start(values, format);
    int n = vsnprintf(body, sizeof body, format, values);
    va_end(values);
    return n < 0 || (size_t)n >= sizeof body ? -1 : casemate_answer(status, "application/json", body, (size_t)n);
}

int casemate_handle(const casemate_request *request) {
    const unsigned char *text = (const unsigned char *)request->body;
    size_t length = request->body_length, characters = 0, words = 0, lines = 0, longest = 0;
    table seen = {0};

    for (size_t at = 0; at < length;) {
        char current[MAX_WORD + 1];
        size_t start = at, kept = 0, letters = 0;
        do { /* one word, or one character that is in none */
            size_t n = sequence(text + at, length - at);
            if (n == 0) {
                return answer_json(400, "{\"error\":\"byte %zu is not UTF-8\"}\n", at);
            }
            characters++;
            if (text[at] == '\n') {
                lines++;
            }
            if (!in_word(text[at])) {
                at++;
                break;
            }
            letters++;
            if (kept + n <= MAX_WORD && kept == at - start) { /* a longer word counts by how it begins */
                for (size_t i = 0; i < n; i++) {
                    unsigned char c = text[at + i];
                    current[kept++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
                }
            }
            at += n;
        } while (at < length && in_word(text[at]));
        if (letters > 0) {
            current[kept] = '\0';
            words++;
            longest = letters > longest ? letters : longest;
            if (count(&seen, current, start) != 0) {
                return 1;
            }
        }
    }
    if (length > 0 && text[length - 1] != '\n') {
        lines++;
    }
    fprintf(stderr, "%zu words, %zu different\n", words, seen.used);

    size_t different = 0;
    for (size_t i = 0; i < seen.capacity; i++) { /* to the front with them */
        if (seen.slots[i].count != 0) {
            seen.slots[different++] = seen.slots[i];
        }
    }
    if (different > 1) {
        qsort(seen.slots, different, sizeof *seen.slots, by_count);
    }
    char top[TOP * (MAX_WORD + 40)];
    size_t used = 0;
    for (size_t i = 0; i < different && i < TOP; i++) { /* no character of a word needs escaping in JSON */
        used += (size_t)snprintf(top + used, sizeof top - used, "%s{\"word\":\"%s\",\"count\":%u}", i > 0 ? "," : "",
                                 seen.slots[i].text, seen.slots[i].count);
    }
    top[used] = '\0';
    return answer_json(200, "{\"bytes\":%zu,\"characters\":%zu,\"words\":%zu,\"different\":%zu,\"lines\":%zu,\"longest\":%zu,\"top\":[%s]}\n",
                       length, characters, words, different, lines, longest, top);
}
