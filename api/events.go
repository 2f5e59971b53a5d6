package api

import (
	"encoding/json"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
)

// AsyncTrigger stands, where a path names a trigger, for the asynchronous invocations of
// the function. No trigger can have this name.
const AsyncTrigger = "-"

// TriggerStatus says how one trigger is doing. Counts are since the node's start.
type TriggerStatus struct {
	Namespace    string        `json:"namespace"`
	Function     string        `json:"function"`
	Name         string        `json:"name,omitempty" doc:"Empty for the function's asynchronous invocations"`
	Kind         string        `json:"kind"`
	Connection   string        `json:"connection,omitempty"`
	Source       *SourceHealth `json:"source,omitempty" doc:"Of triggers that have a source of their own"`
	Running      bool          `json:"running"`
	Paused       bool          `json:"paused"`
	Held         bool          `json:"held" doc:"Turned away for now: the function is throttled or cannot run"`
	Waiting      int64         `json:"waiting" doc:"Events that were not begun"`
	UnderWay     int           `json:"underWay" doc:"Invocations"`
	Retrying     int           `json:"retrying" doc:"Events that wait for another attempt"`
	OldestMillis int64         `json:"oldestMillis" doc:"Age of the oldest event in hand"`
	Done         Tally         `json:"done"`
	Dead         Tally         `json:"dead"`
	Retried      Tally         `json:"retried" doc:"Attempts that failed and were not the last"`
	Filtered     int64         `json:"filtered" doc:"Events that a filter kept away"`
	LastError    *TriggerError `json:"lastError,omitempty"`
}

// Tally is a number since the node's start, and a rate over about the last minute.
type Tally struct {
	Total     int64   `json:"total"`
	PerSecond float64 `json:"perSecond"`
}

// SourceHealth is what a source last reported about itself.
type SourceHealth struct {
	State  string    `json:"state" enum:"starting,running,failing,alert"`
	Reason string    `json:"reason,omitempty"`
	Lag    *int64    `json:"lag,omitempty" doc:"How far it is behind, in the unit of its kind"`
	Since  time.Time `json:"since"`
}

// TriggerError is the last thing that went wrong with a trigger's events.
type TriggerError struct {
	Time   time.Time `json:"time"`
	Code   string    `json:"code,omitempty"`
	Detail string    `json:"detail"`
}

// SetTrigger pauses a trigger's deliveries, or resumes them.
type SetTrigger struct {
	Paused bool `json:"paused"`
}

// EventRecord is a stored event. Data and Detail are there only where they were asked for
// and may be seen.
type EventRecord struct {
	Sequence        uint64            `json:"sequence" doc:"Place in the order of storing"`
	Stored          time.Time         `json:"stored"`
	Channel         string            `json:"channel"`
	Topic           string            `json:"topic,omitempty"`
	Function        string            `json:"function,omitempty"`
	Trigger         string            `json:"trigger,omitempty"`
	ID              string            `json:"id"`
	Source          string            `json:"source,omitempty"`
	Type            string            `json:"type,omitempty"`
	Subject         string            `json:"subject,omitempty"`
	Time            *time.Time        `json:"time,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	Extensions      map[string]string `json:"extensions,omitempty"`
	Principal       string            `json:"principal,omitempty" doc:"Who published it"`
	Key             string            `json:"key,omitempty" doc:"Orders the event among others of the key"`
	Chain           string            `json:"chain,omitempty" doc:"Id of the first of the events that led to this one"`
	Depth           int               `json:"depth,omitempty"`
	Size            int64             `json:"sizeBytes" doc:"Of the data"`
	Unreadable      bool              `json:"unreadable,omitempty" doc:"What is stored is no event"`
	Detail          map[string]string `json:"detail,omitempty" doc:"What the source said besides"`
	Data            []byte            `json:"data,omitempty"` // base64
}

// EventQuery selects events. What is set must all hold.
type EventQuery struct {
	Function string
	Trigger  string // of Function; AsyncTrigger for its asynchronous invocations
	Topic    string
	Type     string // a star at the end stands for any rest
	ID       string
	Since    time.Time
	Until    time.Time
	Limit    int // 0: 50
	Tail     int // of Tail: how many past events come first
}

// EventList is the newest events of a query, newest first.
type EventList struct {
	Items    []EventRecord `json:"items"`
	Complete bool          `json:"complete" doc:"False when older events were not looked at"`
	Searched *time.Time    `json:"searched,omitempty" doc:"How far back it was looked, when not complete"`
	Damaged  bool          `json:"damaged,omitempty" doc:"Some stored events are damaged and were left out"`
}

// EventStory is all that is known of one event.
type EventStory struct {
	Event      EventRecord     `json:"event"`
	Others     []uint64        `json:"others,omitempty" doc:"Sequences of older events with the same id"`
	Deliveries []EventDelivery `json:"deliveries"`
	Damaged    bool            `json:"damaged,omitempty" doc:"Some stored records are damaged and were left out"`
}

// EventDelivery is what became of an event at one trigger. The state is concluded from
// receipts, dead letters and what the trigger has in hand: unknown means that they do not
// tell, as for an event of a batch, whose receipt names the first of the batch alone.
type EventDelivery struct {
	Function    string       `json:"function"`
	Trigger     string       `json:"trigger,omitempty"`
	State       string       `json:"state" enum:"waiting,retrying,done,dead,settled,unknown"`
	Attempts    []Receipt    `json:"attempts" doc:"In order of time, replays among them"`
	Complete    bool         `json:"complete" doc:"False when there are more receipts since then than were looked at"`
	DeadLetters []DeadLetter `json:"deadLetters,omitempty"`
	Replays     []ReplayJob  `json:"replays,omitempty" doc:"Those that had the event run anew"`
}

// EventIn is an event to be published to a topic. The node stamps source and principal.
type EventIn struct {
	ID              string            `json:"id,omitempty" doc:"One that was published before is not stored again; without one the node makes it"`
	Type            string            `json:"type"`
	Subject         string            `json:"subject,omitempty"`
	Time            *time.Time        `json:"time,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	Extensions      map[string]string `json:"extensions,omitempty"`
	Key             string            `json:"key,omitempty" doc:"Events of one key are delivered in order to triggers that ask for it"`
	Data            []byte            `json:"data,omitempty"` // base64
}

// Publish stores events in a topic, all or none.
type Publish struct {
	Events []EventIn `json:"events"`
}

// Published says where an event is.
type Published struct {
	ID        string `json:"id"`
	Sequence  uint64 `json:"sequence"`
	Duplicate bool   `json:"duplicate,omitempty" doc:"It was there before"`
}

// PurgeEvents removes stored events: those of a topic, of a trigger, or of a function's
// asynchronous invocations and all its triggers.
type PurgeEvents struct {
	Function string    `json:"function,omitempty"`
	Trigger  string    `json:"trigger,omitempty" doc:"Of the function; - for its asynchronous invocations"`
	Topic    string    `json:"topic,omitempty"`
	Until    time.Time `json:"until" doc:"Only events that were stored before"`
}

// Purged says how many there were.
type Purged struct {
	Purged int `json:"purged"`
}

// Replay has stored events of a trigger run anew. What is set must all hold; with nothing
// set, all are run.
type Replay struct {
	IDs    []string        `json:"ids,omitempty"`
	Since  *time.Time      `json:"since,omitempty" doc:"Stored then or later"`
	Until  *time.Time      `json:"until,omitempty" doc:"Stored before"`
	Filter json.RawMessage `json:"filter,omitempty" doc:"A CloudEvents subscription filter, or a list of them"`
	To     string          `json:"to,omitempty" doc:"Alias or version to run; what triggers follow when empty"`
}

// ReplayJob is a replay and how far it is.
type ReplayJob struct {
	ID        string          `json:"id"`
	Namespace string          `json:"namespace"`
	Function  string          `json:"function"`
	Trigger   string          `json:"trigger,omitempty"`
	IDs       []string        `json:"ids,omitempty"`
	Since     *time.Time      `json:"since,omitempty"`
	Until     *time.Time      `json:"until,omitempty"`
	Filter    json.RawMessage `json:"filter,omitempty"`
	To        string          `json:"to,omitempty"`
	State     string          `json:"state" enum:"running,done,failed,cancelled"`
	Error     string          `json:"error,omitempty"`
	Read      int64           `json:"read" doc:"Events looked at"`
	Published int64           `json:"published" doc:"Events that run, or will"`
	Started   time.Time       `json:"started"`
	Ended     *time.Time      `json:"ended,omitempty"`
}

// DeadLetter is an event that was given up, and why.
type DeadLetter struct {
	Sequence      uint64       `json:"sequence" doc:"By which it is named"`
	Namespace     string       `json:"namespace"`
	Function      string       `json:"function,omitempty"`
	Trigger       string       `json:"trigger,omitempty"`
	Webhook       string       `json:"webhook,omitempty" doc:"The connection that a destination named"`
	Reason        string       `json:"reason" doc:"attempts, age, permanent, loop, invalid, malformed, corrupt or lost"`
	Code          string       `json:"code,omitempty" doc:"Of the last failure; empty when the function answered"`
	Text          string       `json:"text,omitempty" doc:"What the last failure said"`
	Field         string       `json:"field,omitempty" doc:"Of the event, when it breaks a rule"`
	Status        int          `json:"status,omitempty" doc:"Of the last answer"`
	Attempts      int          `json:"attempts"`
	Version       string       `json:"version,omitempty"`
	Receipt       string       `json:"receipt,omitempty" doc:"Of the last attempt"`
	EventSequence uint64       `json:"eventSequence,omitempty" doc:"0 for an event that was refused before it was stored"`
	Stored        time.Time    `json:"stored"`
	First         *time.Time   `json:"first,omitempty" doc:"When the first attempt began"`
	Last          *time.Time   `json:"last,omitempty" doc:"When the last attempt ended"`
	Died          time.Time    `json:"died"`
	Event         *EventRecord `json:"event,omitempty" doc:"Missing when it cannot be read"`
}

// DeadQuery selects dead letters of a namespace.
type DeadQuery struct {
	Function string
	Trigger  string // of Function; AsyncTrigger for its asynchronous invocations
	Webhook  string
	Reason   string
	Since    time.Time // died then or later
	Until    time.Time // died before
	Limit    int       // 0: 100
}

// DeadList is dead letters, newest first.
type DeadList struct {
	Items    []DeadLetter `json:"items"`
	Complete bool         `json:"complete" doc:"False when there are more"`
	Damaged  bool         `json:"damaged,omitempty" doc:"Some are damaged and were left out"`
}

// DeadSelector selects dead letters to retry or to purge: by their sequences, or those of
// a trigger, of all triggers of a function, or of a webhook.
type DeadSelector struct {
	Sequences []uint64   `json:"sequences,omitempty"`
	Function  string     `json:"function,omitempty"`
	Trigger   string     `json:"trigger,omitempty" doc:"Of the function; - for its asynchronous invocations"`
	Webhook   string     `json:"webhook,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	Since     *time.Time `json:"since,omitempty" doc:"Died then or later"`
	Until     *time.Time `json:"until,omitempty" doc:"Died before"`
}

// Retried says what became of dead letters that were to run anew.
type Retried struct {
	Retried int `json:"retried"`
	Left    int `json:"left" doc:"Those that break the trigger's rules or cannot be read stay"`
}

// Connection is a far side that triggers may use. Files are shown to administrators.
type Connection struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Kind      string            `json:"kind"`
	Settings  json.RawMessage   `json:"settings,omitempty" doc:"An object; its fields are the kind's; no credential"`
	Secrets   []string          `json:"secrets,omitempty" doc:"Names of its credentials"`
	Files     map[string]string `json:"files,omitempty" doc:"Where each credential is on the node's machine"`
	UsedBy    []string          `json:"usedBy,omitempty" doc:"Triggers in force: function/trigger"`
	Created   time.Time         `json:"created"`
	Creator   string            `json:"creator"`
}

// PutConnection makes a connection or replaces it.
type PutConnection struct {
	Kind     string            `json:"kind"`
	Settings json.RawMessage   `json:"settings,omitempty" doc:"An object; its fields are the kind's"`
	Files    map[string]string `json:"files,omitempty" doc:"Of each credential, by its name: the absolute path of a file on the node's machine that only its owner can read"`
}

// EventCounts sums up the triggers of a node.
type EventCounts struct {
	Triggers       int   `json:"triggers"`
	Paused         int   `json:"paused"`
	SourcesFailing int   `json:"sourcesFailing"`
	Waiting        int64 `json:"waiting"`
	UnderWay       int   `json:"underWay"`
	Retrying       int   `json:"retrying"`
	Done           int64 `json:"done" doc:"Since the node's start"`
	Dead           int64 `json:"dead" doc:"Since the node's start"`
}

// The states of a DoctorCheck.
const (
	CheckOK   = "ok"
	CheckWarn = "warn"
	CheckFail = "fail"
)

// DoctorCheck is the result of one check.
type DoctorCheck struct {
	Name   string `json:"name"`
	State  string `json:"state" enum:"ok,warn,fail"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// DoctorProgress says how far a long check is.
type DoctorProgress struct {
	Name string `json:"name"`
	Done uint64 `json:"done"`
	Of   uint64 `json:"of"`
}

// DoctorElement is one line of the node's examination: one field is set. The time by the
// node's clock is in the first.
type DoctorElement struct {
	Time     *time.Time       `json:"time,omitempty"`
	Check    *DoctorCheck     `json:"check,omitempty"`
	Progress *DoctorProgress  `json:"progress,omitempty"`
	Error    *problem.Details `json:"error,omitempty"`
}

// EventElement is one line of a stream of events: an event, or the problem that ended the
// stream.
type EventElement struct {
	EventRecord
	Error *problem.Details `json:"error,omitempty"`
}
