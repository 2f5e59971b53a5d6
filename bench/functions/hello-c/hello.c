/* Answers {"name":"Ada"} with {"hello":"Ada"}: the same work as its peers, for
 * names without escapes. */
#include <stdio.h>
#include <string.h>

#include "casemate.h"

int casemate_handle(const casemate_request *r) {
    const char *name = strstr(r->body, "\"name\":\"");
    const char *end = name ? strchr(name + 8, '"') : NULL;
    if (!end) {
        static const char bad[] = "{\"error\":\"no name\"}";
        return casemate_answer(400, "application/json", bad, sizeof bad - 1);
    }
    char out[512];
    int n = snprintf(out, sizeof out, "{\"hello\":\"%.*s\"}\n", (int)(end - name - 8), name + 8);
    if (n < 0 || (size_t)n >= sizeof out) return 1;
    return casemate_answer(200, "application/json", out, (size_t)n);
}
