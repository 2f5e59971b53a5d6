#include "casemate.h"

#include <stdio.h>

/* Counts the rows of a CSV file that somebody put into a folder. The file's name is the
 * event's subject, its content the body. */
int casemate_handle(const casemate_request *request) {
    size_t rows = 0;
    int quoted = 0, begun = 0;
    for (size_t i = 0; i < request->body_length; i++) {
        char c = request->body[i];
        if (c == '"') {
            quoted = !quoted;
        }
        if (c == '\n' && !quoted) {
            rows += begun;
            begun = 0;
        } else if (c != '\r' && c != '\n') {
            begun = 1;
        }
    }
    rows += begun;
    fprintf(stderr, "%s has %zu rows\n", casemate_header("ce-subject"), rows);
    char answer[64];
    int length = snprintf(answer, sizeof answer, "{\"rows\":%zu}\n", rows);
    return casemate_answer(200, "application/json", answer, (size_t)length);
}
