// Package delivery takes stored events to functions: for each trigger it decides what
// runs next, how often it is tried, and what becomes of it in the end.
//
// It is a decider. It imports leaves and the catalogue of errors; node hands it two
// streams (events, dead letters), the consumers of the first, a small store of keys and
// values, and a way to invoke. Nobody but node and the doors may import it. An Engine may
// be used from many goroutines.
//
// # What it promises
//
//   - At least once. An event is settled on its stream only after the function has done
//     it, or after it is a dead letter on disk. What a killed node had under way is done
//     again. Destinations and results are written before an event is settled, so they
//     too may come twice; what is published has an id made from the event's sequence.
//   - Order. With Delivery.Ordered, each event of a key is done, or dead, before the next
//     one of that key begins, in the order of the stream. This holds over a restart: an
//     ordered trigger begins only when all that was unsettled is in hand again. A key that
//     waits for a retry holds back nobody but its own followers.
//   - Attempts. How often an event was tried is on disk before it is let go, so a restart
//     forgets at most the attempt under way. Throttling, a busy node and a function that
//     is not there are not the event's fault and are no attempts; they hold up the trigger.
//   - Neighbours. An event that waits for a retry is parked: a record in the trigger's own
//     retry log, and the event settled with its consumer. So it takes no place in the
//     consumer's window. Up to MaxParked events of one trigger may be parked; only beyond
//     that does the trigger take no new ones until some are done. Fresh events and retries
//     that are due take turns.
//   - Age counts from the moment an event was stored, also while its trigger is paused or
//     turned away. Who is too old is buried as soon as the trigger runs, without being
//     run, whatever its rate allows.
//
// # Channels
//
// A trigger reads trigger.FN.NAME or topic.NAME, asynchronous invocation async.FN. Beside
// it, and written by this package alone, are its retry log (retry.FN.NAME) and replays
// with dead letters that are tried anew (replay.FN.NAME), in a form that no source can
// forge. Dead letters are on the second stream, under the trigger's own name.
//
// # Goroutines and memory
//
// An idle trigger has one goroutine, in Consume, and no timer. Events in hand are bounded
// by the consumer's window and, in bytes, for each trigger and for all of them; a trigger
// may always hold one.
//
// # Locks
//
// Engine.mu, then trigger.mu, then jobs.mu, marks and budget.mu. None of them is held
// while an event is run or a stream is written; Engine.deads is, and is taken first.
package delivery
