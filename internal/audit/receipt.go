package audit

import "time"

// Receipt is the record of one invocation. It names everything that decided how
// it ran and what it took, and holds no payload, header or secret.
type Receipt struct {
	ID        string        `json:"id"` // UUIDv7
	RequestID string        `json:"requestId"`
	Namespace string        `json:"namespace"`
	Function  string        `json:"function"`
	Version   string        `json:"version"` // version digest
	Artifact  string        `json:"artifact"`
	Alias     string        `json:"alias,omitempty"`
	Trigger   string        `json:"trigger"`         // http, invoke, lambda, event, schedule, queue, async
	Route     string        `json:"route,omitempty"` // pattern, never the path itself
	Principal string        `json:"principal"`
	Event     string        `json:"event,omitempty"`   // id of the event, or of the first of a batch
	Events    int           `json:"events,omitempty"`  // how many a batch had
	Members   string        `json:"members,omitempty"` // ids of a batch's events; see Members
	Source    string        `json:"source,omitempty"`  // the function's trigger by name
	Attempt   int           `json:"attempt,omitempty"` // from 1, at delivering the event
	Replay    bool          `json:"replay,omitempty"`  // the event was delivered before, and somebody had it run anew
	Chain     string        `json:"chain,omitempty"`   // id of the first event of those that led to this one
	Depth     int           `json:"depth,omitempty"`   // place in the chain; 0 for the first
	Sandbox   string        `json:"sandbox,omitempty"`
	Isolation string        `json:"isolation,omitempty"` // what was in force
	Cold      bool          `json:"cold,omitempty"`
	Start     time.Time     `json:"start"`
	Wall      time.Duration `json:"wallNanos"`
	CPU       time.Duration `json:"cpuNanos"`
	Fuel      int64         `json:"fuel,omitempty"`  // instructions executed, an upper bound
	Calls     int64         `json:"calls,omitempty"` // of the host
	Memory    int64         `json:"memoryPeakBytes"`
	BytesIn   int64         `json:"bytesIn"`
	BytesOut  int64         `json:"bytesOut"`
	LogBytes  int64         `json:"logBytes"`
	Status    int           `json:"status"`  // answered to the caller
	Outcome   string        `json:"outcome"` // "ok" or a problem code
}

// LogLine is one line of a function's log.
type LogLine struct {
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace"`
	Function  string    `json:"function"`
	Version   string    `json:"version"`
	RequestID string    `json:"requestId"`
	Receipt   string    `json:"receipt"`
	Text      string    `json:"text"`
}
