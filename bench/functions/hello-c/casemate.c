/* Carries one request from the platform to casemate_handle and the answer back.
 *
 * A request arrives on standard input as one line of JSON, then the body; the
 * answer leaves on standard output in the same shape. The head is decoded where
 * it lies: a decoded string is never longer than its JSON. */
#include "casemate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PAIRS = 512, MAX_DEPTH = 32 };

typedef struct {
    const char *name, *value;
} pair;

typedef struct {
    pair pairs[MAX_PAIRS];
    size_t count;
} pairs;

static pairs headers, params;

static void add(pairs *to, const char *name, const char *value) {
    if (to->count < MAX_PAIRS) {
        to->pairs[to->count++] = (pair){name, value};
    }
}

static const char *find(const pairs *in, const char *name) {
    for (size_t i = 0; i < in->count; i++) {
        if (strcmp(in->pairs[i].name, name) == 0) {
            return in->pairs[i].value;
        }
    }
    return "";
}

const char *casemate_header(const char *name) { return find(&headers, name); }
const char *casemate_param(const char *name) { return find(&params, name); }

/* --- as much of JSON (RFC 8259) as a head needs; NULL means malformed --- */

static char *space(char *p) { return p + strspn(p, " \t\r\n"); }

static int hex4(const char *p, unsigned *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) {
            return 0;
        }
        *unit = *unit << 4 | digit;
    }
    return 1;
}

static char *utf8(char *out, unsigned c) {
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* Decodes the string at p in place, ends it with a zero byte, gives what follows. */
static char *string(char *p, const char **value) {
    if (*p != '"') {
        return NULL;
    }
    char *out = ++p;
    *value = out;
    for (;;) {
        char c = *p++;
        if (c == '\0') {
            return NULL;
        }
        if (c == '"') {
            *out = '\0';
            return p;
        }
        if (c != '\\') {
            *out++ = c;
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        c = *p++;
        const char *simple = c == '\0' ? NULL : strchr(from, c);
        if (simple != NULL) {
            *out++ = to[simple - from];
            continue;
        }
        unsigned unit, low;
        if (c != 'u' || !hex4(p, &unit)) {
            return NULL;
        }
        p += 4;
        if (unit >= 0xd800 && unit < 0xdc00 && p[0] == '\\' && p[1] == 'u' && hex4(p + 2, &low) && low >= 0xdc00 &&
            low < 0xe000) {
            unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        } else if (unit >= 0xd800 && unit < 0xe000) {
            unit = 0xfffd; /* half of a pair */
        }
        out = utf8(out, unit);
    }
}

/* Steps over the value at p. A string is decoded into *text on the way, and so is
 * the first string of a list; for anything else *text stays as it is. */
static char *value(char *p, const char **text, int depth) {
    const char *ignored = NULL;
    p = space(p);
    if (depth > MAX_DEPTH) {
        return NULL;
    }
    if (*p == '"') {
        return string(p, text);
    }
    if (*p != '[' && *p != '{') {
        size_t length = strcspn(p, ",]} \t\r\n");
        return length == 0 ? NULL : p + length;
    }
    char close = *p == '[' ? ']' : '}';
    p = space(p + 1);
    for (int first = 1; *p != close; first = 0) {
        if (!first) {
            if (*p != ',') {
                return NULL;
            }
            p = space(p + 1);
        }
        if (close == '}') {
            p = string(p, &ignored);
            if (p == NULL || *(p = space(p)) != ':') {
                return NULL;
            }
            p++;
        }
        p = value(p, first && close == ']' ? text : &ignored, depth + 1);
        if (p == NULL) {
            return NULL;
        }
        p = space(p);
    }
    return p + 1;
}

/* Reads the object at p, handing each member to one of: a field of the request
 * (by name), or a list of pairs when into is given. */
static char *object(char *p, casemate_request *request, pairs *into) {
    p = space(p);
    if (*p != '{') {
        return NULL;
    }
    p = space(p + 1);
    for (int first = 1; *p != '}'; first = 0) {
        const char *name = "", *text = "";
        if (!first) {
            if (*p != ',') {
                return NULL;
            }
            p = space(p + 1);
        }
        p = string(p, &name);
        if (p == NULL || *(p = space(p)) != ':') {
            return NULL;
        }
        p = space(p + 1);
        if (into == NULL && *p == '{' && strcmp(name, "headers") == 0) {
            p = object(p, NULL, &headers);
        } else if (into == NULL && *p == '{' && strcmp(name, "params") == 0) {
            p = object(p, NULL, &params);
        } else {
            p = value(p, &text, 0);
        }
        if (p == NULL) {
            return NULL;
        }
        if (into != NULL) {
            add(into, name, text);
        } else if (strcmp(name, "id") == 0) {
            request->id = text;
        } else if (strcmp(name, "method") == 0) {
            request->method = text;
        } else if (strcmp(name, "path") == 0) {
            request->path = text;
        } else if (strcmp(name, "query") == 0) {
            request->query = text;
        } else if (strcmp(name, "caller") == 0) {
            request->caller = text;
        }
        p = space(p);
    }
    return p + 1;
}

/* --- standard input and output --- */

/* Reads all of standard input and puts a zero byte behind it. */
static char *read_all(size_t *length) {
    size_t capacity = 64 << 10; /* few reads: each leaves the sandbox */
    char *buffer = malloc(capacity + 1);
    *length = 0;
    while (buffer != NULL) {
        ssize_t n = read(STDIN_FILENO, buffer + *length, capacity - *length);
        if (n < 0) {
            return NULL;
        }
        if (n == 0) {
            buffer[*length] = '\0';
            return buffer;
        }
        *length += (size_t)n;
        if (*length == capacity) {
            capacity *= 4;
            buffer = realloc(buffer, capacity + 1);
        }
    }
    return NULL;
}

static int write_all(const char *p, size_t length) {
    while (length > 0) {
        ssize_t n = write(STDOUT_FILENO, p, length);
        if (n <= 0) {
            return -1;
        }
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

int casemate_answer(int status, const char *content_type, const void *body, size_t length) {
    char head[256];
    int n = snprintf(head, sizeof head, "{\"status\":%d,\"headers\":{\"content-type\":\"%s\"}}\n", status, content_type);
    if (n < 0 || (size_t)n >= sizeof head || strpbrk(content_type, "\"\\\r\n") != NULL) {
        return -1;
    }
    return write_all(head, (size_t)n) != 0 ? -1 : write_all(body, length);
}

static int serve(void) {
    size_t length;
    char *input = read_all(&length);
    char *end = input == NULL ? NULL : memchr(input, '\n', length);
    if (end == NULL) {
        fputs("error: reading the request: it has no head\n", stderr);
        return 1;
    }
    *end = '\0';
    casemate_request request = {.id = "", .method = "", .path = "", .query = "", .caller = ""};
    request.body = end + 1;
    request.body_length = length - (size_t)(end + 1 - input);
    if (object(input, &request, NULL) == NULL) {
        fputs("error: reading the request: its head is not JSON\n", stderr);
        return 1;
    }
    return casemate_handle(&request);
}

#ifdef CASEMATE_ENTRY_HANDLE
__attribute__((export_name("handle"))) int handle(void) { return serve(); }
#else
int main(void) { return serve(); }
#endif
