// Package memory keeps the linear memories of guests: address space that is
// reserved once, images that many instances share copy-on-write, and the way back
// to the image after an invocation. internal/sandbox/wasm and its packages may
// import it, and internal/sandbox/process for OpenPagemap; it imports the standard
// library and golang.org/x/sys/unix.
//
// # States
//
// A Linear is a reservation. Map lays an Image at its bottom: reading it reads the
// image, writing gives the writer a page of its own, and what lies above the image
// is zero. Restore brings back exactly that, whatever was written and however far
// the memory had grown. Three strategies do it, of which Open picks the first that
// the machine allows:
//
//   - Scan asks the kernel which pages are private (PAGEMAP_SCAN, Linux 6.7) and
//     copies those from the image. Its cost follows the pages ever written, not
//     the size. Pages that have become private but are no longer written are let
//     go now and then.
//   - Advise throws all private pages away (MADV_DONTNEED) and pays a page fault
//     for each one that is written again.
//   - Copy needs no help from the kernel: it copies the whole image and clears the
//     rest. It is what other systems than Linux have.
//
// # Concurrency
//
// A System and an Image may be used by many goroutines. A Linear belongs to one
// goroutine at a time.
package memory
