// Reference counts that can stand still. build/edits.go puts these in the place of
// every ++ and -- of a count in quickjs.c.
#ifndef CASEMATE_COUNTS_H
#define CASEMATE_COUNTS_H

// IMMORTAL is the count of an object that is never freed. It is never 1, so nobody
// takes such an object for its own to change.
#define IMMORTAL 0x40000000

static inline int count_up(const void *p)
{
    int n = JS_REF_COUNT(p);
    if (n < IMMORTAL)
        JS_REF_COUNT(p) = ++n;
    return n;
}

static inline int count_down(const void *p)
{
    int n = JS_REF_COUNT(p);
    if (n < IMMORTAL)
        JS_REF_COUNT(p) = --n;
    return n;
}

#endif
