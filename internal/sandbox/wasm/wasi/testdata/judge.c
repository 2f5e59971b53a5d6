// A program that uses what a C library makes of WASI, and says what it saw: in words
// that are the same on any host which keeps to the contract.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, int result) {
  printf("%s: %d %s\n", what, result, result < 0 ? strerror(errno) : "");
}

int main(int argc, char **argv) {
  for (int i = 0; i < argc; i++) printf("arg %d %s\n", i, argv[i]);
  printf("GREETING=%s MISSING=%s\n", getenv("GREETING"), getenv("MISSING") ? "there" : "none");

  char line[64];
  while (fgets(line, sizeof line, stdin)) printf("line of %zu: %s\n", strlen(line), line);
  printf("end of input: %d %d\n", feof(stdin), ferror(stdin));
  say("read at the end", (int)read(0, line, sizeof line));
  say("read output", (int)read(1, line, sizeof line));
  say("read nothing open", (int)read(9, line, sizeof line));
  fprintf(stderr, "a line of the log\n");

  for (int fd = 0; fd < 3; fd++) say("isatty", isatty(fd) ? 1 : 0);
  struct stat st;
  say("open", open("/etc/passwd", O_RDONLY));
  say("open beside", open("x", O_WRONLY | O_CREAT, 0600));
  say("stat", stat("/", &st));
  say("fstat", fstat(9, &st));
  say("seek", (int)lseek(9, 0, SEEK_SET));
  say("mkdir", mkdir("d", 0700));
  say("unlink", unlink("f"));

  struct timespec a, b, wait = {0, 1000000};
  say("realtime", clock_gettime(CLOCK_REALTIME, &a));
  printf("after 2020: %d\n", a.tv_sec > 1577836800);
  say("monotonic", clock_gettime(CLOCK_MONOTONIC, &a));
  say("nanosleep", nanosleep(&wait, NULL));
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("later: %d\n", b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec > a.tv_nsec));
  struct pollfd p = {.fd = 1, .events = POLLOUT};
  say("poll", poll(&p, 1, 1000));

  unsigned char x[32], y[32];
  say("entropy", getentropy(x, sizeof x));
  say("entropy", getentropy(y, sizeof y));
  printf("different: %d\n", memcmp(x, y, sizeof x) != 0);
  say("too much entropy", getentropy(x, 257));

  say("close", close(0));
  say("close again", close(0));
  say("read closed", (int)read(0, line, sizeof line));
  fflush(stdout);
  say("close log", close(2));
  say("write closed", (int)write(2, "x", 1));
  fflush(stdout);
  exit(3);
}
