// Package layout knows which files of the host a native runtime needs, and nothing
// more: the interpreter, its shared libraries and its standard library, the base that
// any program finds, certificate authorities and time zones. What it gives is the
// description of a read-only root; the sandbox mounts it.
//
// The native sandbox may import it. It imports the package function alone, and reads
// the host's files without changing any. Discover runs the interpreters it finds once,
// by way of the function it is handed, so that a shim, a version manager or a virtual
// environment is seen through. A Host is read-only afterwards and may be used by many
// goroutines.
//
// # What is inside
//
// All is below /usr, with /bin, /sbin, /lib and /lib64 as links, whatever the host's
// habit. Every shared library stands in the directory where the host's C library was
// found, which the dynamic linker searches without being told, so neither a cache nor
// LD_LIBRARY_PATH is needed. Of Python's standard library the directories for
// packages are masked: what the host has installed is not the function's business.
//
// # What is not
//
// Of Python: tkinter and nis. No shell, and no other program, unless the version begins with a script that names
// one (see NeedsOf). No locales: the C library has C.UTF-8 built in since glibc 2.35.
// No conversion modules of iconv.
package layout
