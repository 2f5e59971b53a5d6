// A guest that draws before main and after, and keeps a secret wherever it can.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static unsigned char early[16];
static char kept[64], *heap, *second;
static __thread char local[64];

__attribute__((constructor)) static void draw(void) {
  unsigned seed;
  getentropy(&seed, sizeof seed);
  srand(seed);
  getentropy(early, sizeof early);
}

static void hex(const char *what, const unsigned char *p, int n) {
  printf("%s: ", what);
  for (int i = 0; i < n; i++) printf("%02x", p[i]);
  printf("\n");
}

// scan looks through all memory for what a secret begins with, which is written in
// two halves so that the program's own text is not found.
static const char *scan(void) {
  char mark[16];
  strcpy(mark, "secret");
  size_t size = __builtin_wasm_memory_size(0) << 16;
  for (char *p = (char *)16; p < (char *)size - 16; p++)
    if (p != mark && p[0] == mark[0] && !memcmp(p, mark, 6) && p[6] == '-' && p[7] == 'o') return p;
  return NULL;
}

static void answer(void) {
  const char *before = scan();
  printf("{\"status\":200}\n");
  printf("found: %s\n", kept[0] || heap || local[0] || getenv("SECRET") ? "a variable" : before ? before : "nothing");
  char line[64] = "";
  fgets(line, sizeof line, stdin);
  unsigned char late[16];
  getentropy(late, sizeof late);
  hex("early", early, sizeof early);
  hex("late", late, sizeof late);
  printf("rand: %d %d\n", rand(), rand());
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  printf("nanoseconds: %lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
  strcpy(kept, line);
  strcpy(local, line);
  heap = malloc(1 << 20);
  strcpy(heap + 777777, line);
  second = malloc(100);
  strcpy(second, line);
  setenv("SECRET", line, 1);
  printf("end\n");
  fflush(stdout);
  close(0);
  close(1);
  close(2);
}

#ifdef HANDLE
__attribute__((export_name("handle"))) int handle(void) {
  answer();
  return 0;
}
#else
int main(void) {
  answer();
  return 0;
}
#endif
