/* The way between the platform and your function; casemate.c is behind it. Both
 * are yours: read them, change them, or leave them alone.
 *
 * What you write on standard error is the function's log. */
#ifndef CASEMATE_H
#define CASEMATE_H

#include <stddef.h>

/* What came in. No pointer is NULL; all stay valid until the function returns. */
typedef struct {
    const char *id;
    const char *method;
    const char *path;   /* decoded */
    const char *query;  /* as sent, without "?" */
    const char *caller; /* verified by the platform; "anonymous" on a public route */
    const char *body;   /* followed by a zero byte that body_length does not count */
    size_t body_length;
} casemate_request;

/* Write this function: answer with casemate_answer and return 0. Any other value
 * is a failure: the caller gets a 502 that says nothing about it. */
int casemate_handle(const casemate_request *request);

/* Answers, once. Returns 0, or -1 when the answer cannot be written. */
int casemate_answer(int status, const char *content_type, const void *body, size_t length);

/* The first value of a header, or "". Give the name in lower case. */
const char *casemate_header(const char *name);

/* The value of a {name} part of the route's path, or "". */
const char *casemate_param(const char *name);

#endif
