// Package schedule is the source of events that come with time: a cron expression in a
// time zone, an interval, or one moment.
//
// Only node imports it; it imports the contract of the sources (source) and leaves.
//
// # Ticks
//
// The moments at which a schedule fires, its ticks, are computed from its settings alone,
// never from when a process was started: two nodes, or one before and after a restart,
// know the same ticks. An event's id is its tick, so the same tick handed in twice is one
// event for as long as the bus remembers ids; the last tick handed in is kept in the
// store besides. So each tick fires once. Ticks of one schedule are handed in in order.
//
//   - every: multiples of the interval since 1970-01-01T00:00:00Z.
//   - at: that moment.
//   - cron: the five fields of crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly.
//     As there, a day matches when either of the two day fields does, if both are given.
//
// # Daylight saving
//
// A schedule whose hour field covers every hour follows time that passes: "*/15 * * * *"
// fires every 15 minutes, also in the hour that is there twice. Any other one follows the
// clock on the wall: what falls into the hour that is left out fires once, at the moment
// when the clock is put forward; what falls into the hour that is there twice fires in
// the first one alone. This is what cron(8) of Debian does.
//
// # Ticks that were missed
//
// A tick that is more than Grace late, because no node ran, the machine slept or its clock
// was put forward, was missed. The setting missed says what becomes of such ticks: skip
// (none fires; the default, but for at), once (the latest fires; the default for at), all
// (each fires, the latest MaxMissed at most). A schedule misses nothing from before it was
// first run with its present settings.
//
// # The clock
//
// A clock that is put back makes no tick fire again: nothing fires until the last tick
// is passed. When it is put back by more than MaxBack, the ticks that fired are taken for
// the work of a wrong clock, the source reports an alert, and goes on from now.
//
// # Concurrency
//
// A Clockwork runs any number of schedules on one goroutine and one timer; while a tick
// is handed in, it has a goroutine of its own, so that one full trigger holds up no
// other. All methods may be called from many goroutines.
package schedule
