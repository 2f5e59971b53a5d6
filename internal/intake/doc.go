// Package intake is the one door in for events: whatever a source, a publisher or an
// asynchronous caller hands in passes it before it is on the bus, and before any code
// sees it.
//
// It is a mechanism: node imports it, and hands it the stream, the writer of dead letters
// and the backlog. It imports leaves, the contract of the sources (source) and the
// filters of events (event/filter). What others hand it as events is never changed.
//
// # Order
//
// Every event passes the same stages in the same order, listed with the reason for each
// place in stages (stages.go). None can be configured away.
//
// # What it promises
//
//   - When Accept, Offer, Publish or Async return without an error, every event is on disk,
//     was there before under the same id, was dropped by the trigger's own filter, or (with
//     Accept alone) is a dead letter on disk. After an error none need be there; handing in
//     the same ids again makes no second event.
//   - An event's source, and who published it, are said by the platform alone. What a sender
//     claims is kept beside it, in the extension claimedsource.
//   - What breaks the trigger's schema never reaches the function.
//
// # Two ways in
//
// Accept is for sources that can wait: while the function is behind, it blocks, and what
// breaks the rules becomes a dead letter, because the far side cannot be told. Offer is
// for callers that wait for an answer: they get a *BusyError or an *InvalidError and
// nothing is stored.
//
// # Concurrency
//
// All types may be used from many goroutines. Events of one call are stored in their order;
// between calls there is no order but that of their returning. The bound on waiting events
// is checked before events are stored and not again, so calls under way at the same
// time may exceed it by what they carry.
package intake
