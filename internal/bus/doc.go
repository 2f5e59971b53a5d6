// Package bus keeps the node's state: metadata (KV), artifacts (Blobs),
// append-only records (Log) and events with their consumers (Events), all on a NATS JetStream server that runs inside the
// process and listens on no socket.
//
// It is the only package that imports NATS. Mechanisms do not import it: they
// declare the few methods they need over the types of the leaf state, and the
// composition root hands them a *KV, *Blobs, *Log or *Events. All of these, and Bus
// itself, are safe for concurrent use.
//
// What it promises:
//   - A write is on disk (O_SYNC) when it returns without an error. A write that
//     returned an error other than state.ErrConflict or state.ErrFull may still
//     have happened.
//   - Reads see every write that returned before: KV reads ask the stream's
//     leader, never a copy that may lag.
//   - Everything is encrypted at rest. The server's cipher (AES-256 in counter
//     mode for messages) does not notice a changed bit, and its own checksum is
//     no secret, so each value carries an HMAC-SHA256 of ours over the value and
//     the place it was stored at. It is checked on every read: a value that was
//     changed or moved is state.ErrCorrupt, is logged, and makes Check fail until
//     the next start. An older value of the same key put back with its old digest
//     is not detected.
//   - The server leaves damaged messages out, or cuts its files at them, and may
//     say nothing. So reads that find less than the server's index promises fail
//     with state.ErrCorrupt, and what each stream held is noted beside it, every
//     markEvery and at Close, and compared at the next start: a KV or Blobs that
//     has lost something does not open, a Log that has is logged and listed in
//     Warnings. Two things remain: records of a Log cut at the end that were
//     written after the last note before a kill, and a bit changed in the sequence
//     number within a message's header, on which the server fills the memory
//     while it starts.
//   - Events are stored in batches that callers share, all entries of a call or
//     none, and come to each consumer of their channel at least once: in the order
//     of storing, but for those that come again. Each carries its own sequence and
//     that of its predecessor in its channel, so one that is changed, moved, put
//     back or left out by the server is reported by whoever reads past it: a
//     reader, a consumer, Verify, or the next start. Purges are noted, so that they
//     are told from losses. Full Events refuse; they drop only what is too old, and,
//     where EventsConfig.Keep allows it, what every consumer has settled. Two things
//     remain: events at the end that were written after the last note of the marks
//     before a kill, and ones at the front that may have grown too old since.
//   - A damaged event is reported once in each run and handed to its consumer by its
//     place alone, and makes Check fail until a purge of its channel covers it.
//   - Files that the server could not decrypt are set aside before it starts, in the
//     folder quarantine of Config.Dir, and reported. A configuration is made anew; what
//     was in a block is lost; a consumer goes on behind what it is noted to have
//     settled, so what it has settled since the last note comes again.
//   - A file system with less than Config.MinFree left takes no more writes
//     (state.ErrFull), because the server would otherwise run into the end of
//     the disk and turn itself off.
package bus
