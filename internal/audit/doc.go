// Package audit keeps the record of what ran: one receipt for each invocation,
// and the lines that functions log.
//
// It is a mechanism: the composition root hands it two append-only streams, and
// invoke and control declare the few methods they need of the Recorder. All of
// its methods may be called at the same time.
//
// What it promises of receipts:
//   - When Record returns nil, the receipt is in a journal file: written to the
//     kernel (write(2)), not yet forced to the disk. Killing the process in
//     whatever way loses none of them: the next Open moves what the journal still
//     holds to the stream, each receipt once.
//   - A background flush, every DefaultInterval or DefaultBatch receipts, appends
//     them to the stream, which is durable when it returns. So a loss of power,
//     or a crash of the kernel, loses at most the receipts of the last interval
//     and of the flush under way; while the stream fails, those waiting in the
//     journal too, as far as the kernel had not written them back by itself.
//   - While the stream fails, receipts gather in the journal up to
//     Config.MaxJournal; beyond it Record fails with ErrJournalFull. A receipt is
//     never dropped in silence.
//   - The journal is sealed with AES-256-GCM, each record bound to its segment and
//     its position. A record cut short at the very end is what a crash leaves, and
//     is cut off. Anything else that does not fit is damage: it is logged, listed
//     in Warnings, and the file is kept beside the journal under the ending
//     .corrupt, while all records that can still be read are used. Whoever can
//     write the directory can remove the journal's end unnoticed; the chain of
//     evidence begins in the stream.
//
// A batch of either stream is packed when it is large (packed.go); how it is stored is
// known to nobody outside of this package.
//
// Log lines have no journal: they wait in memory for the same flush, up to a
// bound, and lines beyond it are counted and reported as a line of their own.
//
// Lock order: flushing, then Recorder.mu; Recorder.logs.mu is taken alone.
package audit
