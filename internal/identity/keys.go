package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/casemate-dev/casemate/internal/state"
)

// Why a credential is refused. They are for logs: whoever presented it is told
// the same in every case.
var (
	// ErrInvalid means that the text is no key of this node.
	ErrInvalid = errors.New("the key is not valid")
	// ErrExpired means that the key was valid until it expired.
	ErrExpired = errors.New("the key has expired")
	// ErrRevoked means that the key was valid until it was revoked.
	ErrRevoked = errors.New("the key was revoked")
)

// Bounds of what is said of a key.
const (
	maxKeyName = 100 // bytes
	maxScopes  = 100
)

// settleTimeout bounds how long a write with an unknown end is looked into.
const settleTimeout = 5 * time.Second

const keyRecordPrefix = "key."

// Store keeps key records with compare-and-set; the errors matched are
// state.ErrNotFound and state.ErrConflict.
type Store interface {
	Get(ctx context.Context, key string) (state.Entry, error)
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	List(ctx context.Context, prefix string) ([]state.Entry, error)
}

// Key is what may be known of a key. Zero times mean never.
type Key struct {
	ID        string
	Kind      KeyKind
	Name      string
	Scopes    []Scope
	Created   time.Time
	Creator   string
	Expires   time.Time
	Revoked   time.Time
	RevokedBy string
}

// NewKey asks for a key. At least one scope is needed; a zero Expires means never.
type NewKey struct {
	Kind    KeyKind // KindBearer when empty
	Name    string
	Scopes  []Scope
	Expires time.Time
	Creator string
}

// Fault is a stored key that is refused: it authenticates nobody.
type Fault struct {
	Key    string
	Reason string
}

// held is a key in the index. It is replaced, never changed.
type held struct {
	key       Key
	print     fingerprint // KindBearer
	sealed    []byte      // KindAWS: the secret, which a signature cannot be checked without
	principal Principal
}

// Format shows nothing: fmt does not ask the fields of a struct that are not
// exported how they want to be shown.
func (held) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// Keys are the API keys of this node. OpenKeys makes them.
type Keys struct {
	store Store
	seal  Sealer
	clock func() time.Time
	rand  io.Reader

	index atomic.Pointer[map[string]*held]
	// nobody stands in for unknown ids, so that they are compared like known ones.
	nobody *held

	// mu serialises changes of the index and guards rand and faults. It is held
	// across the store calls of a change.
	mu     sync.Mutex
	faults []Fault
}

// OpenKeys loads the keys. A stored key that is not what it claims to be is left
// out and listed by Faults: it authenticates nobody, and the others still work.
// seal encrypts the secrets of access keys; rand must be cryptographically secure.
func OpenKeys(ctx context.Context, store Store, seal Sealer, clock func() time.Time, rand io.Reader) (*Keys, error) {
	if store == nil || seal == nil || clock == nil || rand == nil {
		return nil, errors.New("opening the keys: store, seal, clock and rand are all needed")
	}
	k := &Keys{store: store, seal: seal, clock: clock, rand: rand, nobody: &held{}}
	// A print nobody can present: there is no text that digests to it by chance.
	if _, err := io.ReadFull(rand, k.nobody.print[:]); err != nil {
		return nil, fmt.Errorf("opening the keys: reading randomness: %v", err)
	}
	if err := k.sealNobody(); err != nil {
		return nil, fmt.Errorf("opening the keys: %v", err)
	}
	stored, err := store.List(ctx, keyRecordPrefix)
	if err != nil {
		return nil, fmt.Errorf("opening the keys: listing them: %w", err)
	}
	index := make(map[string]*held, len(stored))
	for _, se := range stored {
		h, err := decodeKey(se.Key, se.Value)
		if err == nil {
			err = k.opens(h)
		}
		if err != nil {
			k.faults = append(k.faults, Fault{se.Key, err.Error()})
			continue
		}
		index[h.key.ID] = h
	}
	k.index.Store(&index)
	return k, nil
}

// Faults lists the stored keys that are refused. An operator should see them.
func (k *Keys) Faults() []Fault {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.faults)
}

// Format shows nothing of what the index holds.
func (k *Keys) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "identity.Keys") }

// Verify answers who presents the key. It fails with ErrInvalid, ErrExpired or
// ErrRevoked; the last two only towards somebody who holds the secret.
func (k *Keys) Verify(presented string) (Principal, error) {
	id, given, err := parseKey(presented)
	if err != nil {
		return Principal{}, ErrInvalid
	}
	h, known := (*k.index.Load())[id]
	if !known || h.key.Kind != KindBearer {
		h, known = k.nobody, false
	}
	// One comparison for everybody, over all of it: how long it takes says neither
	// whether the id exists nor how much of the secret was right.
	same := subtle.ConstantTimeCompare(given[:], h.print[:]) == 1
	if !same || !known {
		return Principal{}, ErrInvalid
	}
	if err := h.ended(k.clock()); err != nil {
		return Principal{}, err
	}
	return h.principal, nil
}

// ended says why the key is no longer good, if it is not.
func (h *held) ended(now time.Time) error {
	if !h.key.Revoked.IsZero() {
		return ErrRevoked
	}
	if !h.key.Expires.IsZero() && !now.Before(h.key.Expires) {
		return ErrExpired
	}
	return nil
}

// Create makes a key. The secret is its text form, or what signs with an access
// key: it is returned here and can never be had again.
func (k *Keys) Create(ctx context.Context, n NewKey) (secret string, key Key, err error) {
	now := k.clock().UTC()
	scopes, err := n.check(now)
	if err != nil {
		return "", Key{}, fmt.Errorf("creating a key: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var rawID [idLength * 5 / 8]byte
	if _, err := io.ReadFull(k.rand, rawID[:]); err != nil {
		return "", Key{}, fmt.Errorf("creating a key: reading randomness: %v", err)
	}
	id := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(rawID[:]))
	h := newHeld(Key{
		ID: id, Kind: cmp.Or(n.Kind, KindBearer), Name: n.Name, Scopes: scopes, Created: now, Creator: n.Creator, Expires: n.Expires,
	}, fingerprint{})
	if secret, err = k.newSecret(h); err != nil {
		return "", Key{}, fmt.Errorf("creating a key: %v", err)
	}
	b, err := encodeKey(h)
	if err != nil {
		return "", Key{}, fmt.Errorf("creating a key: %v", err)
	}
	if _, err := k.store.Create(ctx, keyRecordPrefix+id, b); err != nil && !k.stored(ctx, id, b) {
		// If it was stored all the same, it is a key whose secret nobody knows.
		return "", Key{}, fmt.Errorf("storing the key: %w", err)
	}
	k.put(h)
	return secret, h.key, nil
}

// FieldError says which part of a NewKey is wrong, and how to put it right.
type FieldError struct {
	Field  string // kind, name, scopes, expires
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// check answers the scopes in the form that they are stored in.
func (n *NewKey) check(now time.Time) ([]Scope, error) {
	if n.Kind != "" && n.Kind != KindBearer && n.Kind != KindAWS {
		return nil, &FieldError{"kind", "want aws, or nothing for a key that is sent as it is"}
	}
	if len(n.Name) > maxKeyName || strings.ContainsFunc(n.Name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return nil, &FieldError{"name", fmt.Sprintf("it takes at most %d bytes of printable characters", maxKeyName)}
	}
	if len(n.Scopes) == 0 || len(n.Scopes) > maxScopes {
		return nil, &FieldError{"scopes", fmt.Sprintf("1 to %d are needed, as in invoke:default/*", maxScopes)}
	}
	scopes := make([]Scope, 0, len(n.Scopes))
	for _, s := range n.Scopes {
		s, err := ParseScope(s.String())
		if err != nil {
			return nil, &FieldError{"scopes", "want " + ScopeForms}
		}
		if n.Kind == KindAWS && !slices.Contains(awsActions(), s.Action) {
			return nil, &FieldError{"scopes", "an AWS access key opens the Lambda API and the object store alone, so it takes invoke, read, fetch and store, not " + string(s.Action)}
		}
		scopes = append(scopes, s)
	}
	if !n.Expires.IsZero() && !n.Expires.After(now) {
		return nil, &FieldError{"expires", "it lies in the past; name a time to come, or none"}
	}
	return scopes, nil
}

// stored finds out whether a write that failed was made all the same.
func (k *Keys) stored(ctx context.Context, id string, want []byte) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	se, err := k.store.Get(ctx, keyRecordPrefix+id)
	return err == nil && bytes.Equal(se.Value, want)
}

// put replaces one key in the index. The caller holds mu.
func (k *Keys) put(h *held) {
	next := maps.Clone(*k.index.Load())
	next[h.key.ID] = h
	k.index.Store(&next)
}

// Revoke ends a key. It takes effect at once, before it is stored: when storing
// it fails the key stays refused until the next start, and the error says that
// revoking must be repeated. Revoking a revoked key changes nothing. An unknown
// id is state.ErrNotFound.
func (k *Keys) Revoke(ctx context.Context, id, by string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := (*k.index.Load())[id]
	if h == nil {
		return fmt.Errorf("revoking the key %.40q: %w", id, state.ErrNotFound)
	}
	revoked := *h
	if revoked.key.Revoked.IsZero() {
		revoked.key.Revoked, revoked.key.RevokedBy = k.clock().UTC(), by
		k.put(&revoked)
	}
	for {
		se, err := k.store.Get(ctx, keyRecordPrefix+id)
		if err != nil {
			return notStored(id, err)
		}
		// An unreadable record authenticates nobody after the next start either, but
		// writing it anew keeps the account of who ended it.
		if there, derr := decodeKey(se.Key, se.Value); derr == nil && !there.key.Revoked.IsZero() {
			k.put(there)
			return nil
		}
		b, err := encodeKey(&revoked)
		if err != nil {
			return notStored(id, err)
		}
		_, err = k.store.Update(ctx, keyRecordPrefix+id, b, se.Revision)
		switch {
		case err == nil || k.stored(ctx, id, b):
			return nil
		case !errors.Is(err, state.ErrConflict):
			return notStored(id, err)
		}
	}
}

func notStored(id string, err error) error {
	return fmt.Errorf("the key %s is refused from now on, but this could not be stored and would be forgotten at the next start; revoke it again: %w", id, err)
}

// List answers every key, revoked and expired ones too, the oldest first.
func (k *Keys) List(context.Context) ([]Key, error) {
	index := *k.index.Load()
	keys := make([]Key, 0, len(index))
	for _, h := range index {
		key := h.key
		key.Scopes = slices.Clone(key.Scopes)
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b Key) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return keys, nil
}

func newHeld(key Key, f fingerprint) *held {
	return &held{key: key, print: f, principal: Principal{Kind: "key", ID: key.ID, Name: key.Name, Scopes: slices.Clone(key.Scopes)}}
}

// keyRecord is the stored form of a key.
type keyRecord struct {
	Form      int       `json:"form"`
	ID        string    `json:"id"`
	Name      string    `json:"name,omitempty"`
	Scopes    []string  `json:"scopes"`
	Created   time.Time `json:"created"`
	Creator   string    `json:"creator"`
	Expires   time.Time `json:"expires,omitzero"`
	Revoked   time.Time `json:"revoked,omitzero"`
	RevokedBy string    `json:"revokedBy,omitempty"`
	SHA256    string    `json:"sha256,omitempty"` // of the id and the secret
	Kind      KeyKind   `json:"kind,omitempty"`   // left out for KindBearer
	Sealed    []byte    `json:"sealed,omitempty"` // the secret of KindAWS
}

const keyForm = 1

func encodeKey(h *held) ([]byte, error) {
	rec := keyRecord{
		Form: keyForm, ID: h.key.ID, Name: h.key.Name, Created: h.key.Created, Creator: h.key.Creator,
		Expires: h.key.Expires, Revoked: h.key.Revoked, RevokedBy: h.key.RevokedBy,
	}
	if h.key.Kind == KindAWS {
		rec.Kind, rec.Sealed = KindAWS, h.sealed
	} else {
		rec.SHA256 = hex.EncodeToString(h.print[:])
	}
	for _, s := range h.key.Scopes {
		rec.Scopes = append(rec.Scopes, s.String())
	}
	b, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encoding the key: %v", err)
	}
	return b, nil
}

// decodeKey never quotes the record: it holds the secret's digest.
func decodeKey(storedUnder string, b []byte) (*held, error) {
	var rec keyRecord
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&rec); err != nil {
		return nil, errors.New("the record is not a key's")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || rec.Form != keyForm {
		return nil, errors.New("the record is not in a form this program reads")
	}
	if !validID(rec.ID) || keyRecordPrefix+rec.ID != storedUnder {
		return nil, errors.New("the record is of another key")
	}
	key := Key{
		ID: rec.ID, Kind: cmp.Or(rec.Kind, KindBearer), Name: rec.Name, Created: rec.Created, Creator: rec.Creator,
		Expires: rec.Expires, Revoked: rec.Revoked, RevokedBy: rec.RevokedBy,
	}
	var print fingerprint
	switch key.Kind {
	case KindBearer:
		if n, err := hex.Decode(print[:], []byte(rec.SHA256[:min(len(rec.SHA256), 2*len(print))])); err != nil || n != len(print) || len(rec.SHA256) != 2*n || rec.Sealed != nil {
			return nil, errors.New("the record holds no digest")
		}
	case KindAWS:
		if len(rec.Sealed) == 0 || rec.SHA256 != "" {
			return nil, errors.New("the record holds no sealed secret")
		}
	default:
		return nil, errors.New("the record is of a kind of key that this program does not know")
	}
	for _, text := range rec.Scopes {
		s, err := ParseScope(text)
		if err != nil {
			return nil, err
		}
		key.Scopes = append(key.Scopes, s)
	}
	h := newHeld(key, print)
	h.sealed = rec.Sealed
	return h, nil
}
