package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// storedForm is the number of the form in which records and versions are stored.
// A value of another form is refused, not guessed at.
const storedForm = 1

// Sizes of stored values, in bytes. A store takes at least a mebibyte.
const (
	maxRecord  = 768 << 10
	maxVersion = 512 << 10
)

// Why an alias moved.
const (
	WhyDeploy   = "deploy"
	WhyAlias    = "alias"
	WhyRollback = "rollback"
)

// Weight is a share of an alias's traffic, in percent.
type Weight struct {
	Version function.Digest `json:"version"`
	Percent int             `json:"percent"`
}

// Move is one position an alias was put in.
type Move struct {
	Targets []Weight  `json:"targets"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Why     string    `json:"why"` // WhyDeploy, WhyAlias, WhyRollback
}

// Alias is a movable pointer. Targets have the largest share first and add up to
// 100. History is newest first and begins with the position the alias is in.
type Alias struct {
	Name    string   `json:"name"`
	Targets []Weight `json:"targets"`
	History []Move   `json:"history"`
}

// record is the one value that decides what a function is.
type record struct {
	Form     int               `json:"form"`
	Function function.Ref      `json:"function"`
	Versions []function.Digest `json:"versions"` // newest first
	Aliases  []Alias           `json:"aliases"`  // by name
}

type versionRecord struct {
	Form    int              `json:"form"`
	Version function.Version `json:"version"`
}

const (
	functionPrefix = "function."
	versionPrefix  = "version."
	artifactPrefix = "artifact."
)

func functionKey(ref function.Ref) string {
	return functionPrefix + ref.Namespace + "." + ref.Name
}

func versionsPrefix(ref function.Ref) string {
	return versionPrefix + ref.Namespace + "." + ref.Name + "."
}

func versionKey(ref function.Ref, id function.Digest) string {
	return versionsPrefix(ref) + id.Hex()
}

// refOfKey reads the function out of a function's or a version's key.
func refOfKey(key string) (function.Ref, bool) {
	parts := strings.Split(key, ".")
	if len(parts) < 3 {
		return function.Ref{}, false
	}
	ref := function.Ref{Namespace: parts[1], Name: parts[2]}
	return ref, validRef(ref)
}

func validRef(ref function.Ref) bool {
	return function.ValidName(ref.Namespace) && function.ValidName(ref.Name)
}

// decode reads exactly one JSON value and refuses unknown fields: a field that
// this program does not know would be lost on the next write.
func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one value")
	}
	return nil
}

func encodeRecord(rec *record) ([]byte, error) {
	b, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encoding the record of %s: %v", rec.Function, err)
	}
	return b, nil
}

func decodeRecord(key string, b []byte) (*record, error) {
	var rec record
	if err := decode(b, &rec); err != nil {
		return nil, fmt.Errorf("decoding the record: %v", err)
	}
	if rec.Form != storedForm {
		return nil, fmt.Errorf("the record has form %d and this program reads form %d", rec.Form, storedForm)
	}
	if !validRef(rec.Function) || functionKey(rec.Function) != key {
		return nil, fmt.Errorf("the record says it is of %.130q", rec.Function.String())
	}
	listed := map[function.Digest]bool{}
	for _, id := range rec.Versions {
		if _, err := function.ParseDigest(string(id)); err != nil || listed[id] {
			return nil, fmt.Errorf("the record lists the version %.80q, malformed or twice", id)
		}
		listed[id] = true
	}
	for i := range rec.Aliases {
		a := &rec.Aliases[i]
		if err := checkAliasName(a.Name); err != nil || (i > 0 && rec.Aliases[i-1].Name >= a.Name) {
			return nil, fmt.Errorf("the record holds the alias %.80q, malformed or out of order", a.Name)
		}
		if len(a.History) == 0 || !slices.Equal(a.History[0].Targets, a.Targets) {
			return nil, fmt.Errorf("the history of alias %s does not begin with its position", a.Name)
		}
		for _, m := range a.History {
			if err := checkTargets(m.Targets); err != nil {
				return nil, fmt.Errorf("alias %s: %v", a.Name, err)
			}
			for _, t := range m.Targets {
				if !listed[t.Version] {
					return nil, fmt.Errorf("alias %s points at the version %s, which the record does not list", a.Name, t.Version.Short())
				}
			}
		}
	}
	return &rec, nil
}

func encodeVersion(v *function.Version) ([]byte, error) {
	b, err := json.Marshal(versionRecord{storedForm, *v})
	if err != nil {
		return nil, fmt.Errorf("encoding a version of %s: %v", v.Ref, err)
	}
	return b, nil
}

// decodeVersion refuses a version whose content is not what its id digests, or
// which is stored under the key of another one.
func decodeVersion(key string, b []byte) (*function.Version, error) {
	var s versionRecord
	if err := decode(b, &s); err != nil {
		return nil, fmt.Errorf("decoding the version: %v", err)
	}
	if s.Form != storedForm {
		return nil, fmt.Errorf("the version has form %d and this program reads form %d", s.Form, storedForm)
	}
	v := &s.Version
	if _, err := function.ParseDigest(string(v.Artifact)); err != nil {
		return nil, err
	}
	id, err := function.VersionID(v.Artifact, v.Config)
	if err != nil {
		return nil, err
	}
	if id != v.ID {
		return nil, fmt.Errorf("the version calls itself %s and its content digests to %s", v.ID.Short(), id.Short())
	}
	if !validRef(v.Ref) || versionKey(v.Ref, v.ID) != key {
		return nil, fmt.Errorf("the version %s of %.130q is stored under the key of another", v.ID.Short(), v.Ref.String())
	}
	if v.Size < 1 || v.Size > MaxArtifact {
		return nil, fmt.Errorf("the version says its code has %d bytes", v.Size)
	}
	return v, nil
}

// clone copies as much of the record as a change may write to.
func (rec *record) clone() *record {
	c := *rec
	c.Versions = slices.Clone(rec.Versions)
	c.Aliases = slices.Clone(rec.Aliases)
	return &c
}

func findAlias(aliases []Alias, name string) (int, bool) {
	return slices.BinarySearchFunc(aliases, name, func(a Alias, n string) int { return strings.Compare(a.Name, n) })
}

// move puts the alias in a new position and remembers it. History slices are
// shared with readers, so a new one is made.
func (rec *record) move(name string, m Move) *Alias {
	i, found := findAlias(rec.Aliases, name)
	if !found {
		rec.Aliases = slices.Insert(rec.Aliases, i, Alias{Name: name})
	}
	a := &rec.Aliases[i]
	if len(m.By) > maxBy {
		m.By = strings.ToValidUTF8(m.By[:maxBy], "")
	}
	past := a.History[:min(len(a.History), HistoryLength-1)]
	a.History = append([]Move{m}, past...)
	a.Targets = m.Targets
	return a
}

// prune drops from the list the versions that nothing points at, beyond the
// newest keep of them, and returns what it dropped.
func (rec *record) prune(keep int) []function.Digest {
	needed := map[function.Digest]bool{}
	for _, a := range rec.Aliases {
		for _, m := range a.History { // begins with the current position
			for _, t := range m.Targets {
				needed[t.Version] = true
			}
		}
	}
	var dropped []function.Digest
	spare := 0
	rec.Versions = slices.DeleteFunc(rec.Versions, func(id function.Digest) bool {
		if needed[id] {
			return false
		}
		spare++
		if spare <= keep {
			return false
		}
		dropped = append(dropped, id)
		return true
	})
	return dropped
}

// trim prunes, and if the record is still longer than limit bytes it shortens
// every history by half until it fits. It returns the versions dropped.
func (rec *record) trim(keep, limit int) []function.Digest {
	dropped := rec.prune(keep)
	for n := HistoryLength / 2; n > 0; n /= 2 {
		if b, err := encodeRecord(rec); err != nil || len(b) <= limit {
			break // an error comes up again where the record is written
		}
		for i := range rec.Aliases {
			a := &rec.Aliases[i]
			a.History = a.History[:min(len(a.History), n)]
		}
		dropped = append(dropped, rec.prune(keep)...)
	}
	return dropped
}
