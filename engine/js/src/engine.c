// The JavaScript engine as one WebAssembly module. This file is the only one that
// is compiled: it includes QuickJS-ng and our own parts, so that they share one
// unit. We reach into the interpreter where its public API has no way: its strings
// (no copy to look at one), its stack limit (which it leaves off on WASI) and its
// random state.
//
// The parts, each in terms of those before it:
//
//   host.h     what is imported: WASI and the module "casemate"
//   hot.h      where what is written to often lies
//   counts.h   reference counts that can stand still
//   define.h   properties of new objects
//   async.h    the promises of async functions
//   heap.h     the allocator under QuickJS, laid out for snapshots
//   quickjs    third party, unchanged but for the edits in build/edits.go
//   text.h     UTF-8 and Latin-1 to strings and back
//   url.h      the URL fast paths
//   head.h     the head line that a request begins with
//   report.h   what goes to standard error
//   ops.h      host operations
//   answer.h   the answer's head line and body
//   headers.h  header names and values
//   natives.h  the members of __native, see boot/NATIVES.md
//   run.h      _initialize, prepare, handle

#include <alloca.h>
#include <assert.h>
#include <fenv.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "host.h"
#include "hot.h"

// QuickJS prints only where it is about to abort, and dumps that we never ask for.
// Without this, all of stdio would be linked, and with it imports that a function
// has no use for. The C library's formatter itself names standard error, to complain
// about long doubles before it aborts; these two stand in.
#define printf(...) ((void)0)
#define fprintf(...) ((void)0)
#define vfprintf(...) ((void)0)
#define putchar(c) ((void)(c))
char __stderr_FILE[256];
int fputs(const char *restrict text, FILE *restrict file)
{
    (void)text, (void)file;
    __builtin_trap();
}

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#include "quickjs.c"
#include "dtoa.c"
#include "libregexp.c"
#include "libunicode.c"
#pragma clang diagnostic pop

#undef printf
#undef fprintf
#undef vfprintf
#undef putchar

#include "engine.h"
#include "text.h"
#include "url.h"
#include "head.h"
#include "report.h"
#include "ops.h"
#include "native.h"
#include "answer.h"
#include "headers.h"
#include "natives.h"
#include "run.h"
