package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

var errInjected = errors.New("injected failure")

// memory is a store in memory. fail, when set, is asked before each call, and
// lose after each write that was made.
type memory struct {
	mu       sync.Mutex
	entries  map[string]state.Entry
	revision uint64
	fail     func(op string) error
	lose     func(op string) error
}

func newMemory() *memory { return &memory{entries: map[string]state.Entry{}} }

func ask(f func(string) error, op string) error {
	if f == nil {
		return nil
	}
	return f(op)
}

func (m *memory) Get(_ context.Context, key string) (state.Entry, error) {
	if err := ask(m.fail, "get"); err != nil {
		return state.Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return e, state.ErrNotFound
	}
	return e, nil
}

func (m *memory) write(op, key string, value []byte, revision uint64) (uint64, error) {
	if err := ask(m.fail, op); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[key].Revision != revision {
		return 0, state.ErrConflict
	}
	m.revision++
	m.entries[key] = state.Entry{Key: key, Value: slices.Clone(value), Revision: m.revision}
	return m.revision, ask(m.lose, op)
}

func (m *memory) Create(_ context.Context, key string, value []byte) (uint64, error) {
	return m.write("create", key, value, 0)
}

func (m *memory) Update(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return m.write("update", key, value, revision)
}

func (m *memory) List(_ context.Context, prefix string) ([]state.Entry, error) {
	if err := ask(m.fail, "list"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var es []state.Entry
	for key, e := range m.entries {
		if strings.HasPrefix(key, prefix) {
			es = append(es, e)
		}
	}
	return es, nil
}

type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *fakeClock { return &fakeClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type keyBench struct {
	t     testing.TB
	store *memory
	seal  Sealer
	clock *fakeClock
	*Keys
}

func newKeyBench(t testing.TB) *keyBench {
	t.Helper()
	b := &keyBench{t: t, store: newMemory(), seal: newSealer(t), clock: newClock()}
	b.reopen()
	return b
}

func (b *keyBench) reopen() {
	b.t.Helper()
	b.store.fail, b.store.lose = nil, nil
	k, err := OpenKeys(context.Background(), b.store, b.seal, b.clock.Now, rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Keys = k
}

func (b *keyBench) create(scopes ...string) (string, Key) {
	b.t.Helper()
	n := NewKey{Name: "test", Creator: "node"}
	for _, s := range scopes {
		sc, err := ParseScope(s)
		if err != nil {
			b.t.Fatal(err)
		}
		n.Scopes = append(n.Scopes, sc)
	}
	secret, key, err := b.Create(context.Background(), n)
	if err != nil {
		b.t.Fatal(err)
	}
	return secret, key
}

func (b *keyBench) refused(presented string, want error) {
	b.t.Helper()
	p, err := b.Verify(presented)
	if !errors.Is(err, want) || p.ID != "" || len(p.Scopes) != 0 {
		b.t.Errorf("verifying: principal %v, error %v, want %v", p, err, want)
	}
}

// mend puts the right checksum on a text, as an attacker would.
func mend(text string) string {
	sum := checksum(text[:checksumStart])
	return text[:checksumStart] + string(sum[:])
}

func TestKeyIsWhoItWasMadeFor(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.create("invoke:shop/*", "read:default/hello")
	for range 2 {
		p, err := b.Verify(secret)
		if err != nil || p.Kind != "key" || p.ID != key.ID || p.Name != "test" || p.String() != "key:"+key.ID {
			t.Fatalf("principal %+v, error %v", p, err)
		}
		if !p.May(Invoke, function.Ref{Namespace: "shop", Name: "cart"}) || p.May(Deploy, function.Ref{Namespace: "shop", Name: "cart"}) {
			t.Errorf("scopes %v", p.Scopes)
		}
		b.reopen()
	}
	keys, err := b.List(context.Background())
	if err != nil || len(keys) != 1 || keys[0].ID != key.ID || keys[0].Creator != "node" || !keys[0].Created.Equal(b.clock.Now()) {
		t.Errorf("listed %+v, %v", keys, err)
	}
	if len(secret) != keyLength || !strings.HasPrefix(secret, "cm_"+key.ID+"_") {
		t.Errorf("the key has %d characters in another form", len(secret))
	}
}

func TestSecretIsStoredNowhere(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.create("admin")
	raw, err := keyEncoding.DecodeString(secret[secretStart:checksumStart])
	if err != nil {
		t.Fatal(err)
	}
	stored := b.store.entries["key."+key.ID].Value
	for name, s := range map[string][]byte{
		"text": []byte(secret), "secret": []byte(secret[secretStart:checksumStart]), "hex": []byte(hex.EncodeToString(raw)), "bytes": raw,
	} {
		if bytes.Contains(stored, s) {
			t.Errorf("the secret is stored as %s", name)
		}
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.create("admin")
	_, print, err := parseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	principal, err := b.Verify(secret)
	if err != nil {
		t.Fatal(err)
	}
	h := (*b.index.Load())[key.ID]
	_, refusal := b.Verify(secret[:keyLength-1])
	digest := [32]byte(print)
	leaks := []string{
		secret[secretStart:checksumStart], hex.EncodeToString(digest[:]), strings.Trim(fmt.Sprintf("%d", digest[:8]), "[]"), fmt.Sprintf("%#v", digest[:8])[7:30],
	}
	for name, v := range map[string]any{
		"keys": b.Keys, "key": key, "principal": principal, "held": h, "held value": *h, "fingerprint": print, "pointer": &print,
		"slice": []fingerprint{print}, "error": refusal, "faults": b.Faults(), "wrapped": struct{ F fingerprint }{print},
	} {
		shown := fmt.Sprintf("%v %+v %#v %s %x %q %d", v, v, v, v, v, v, v)
		if j, err := json.Marshal(v); err == nil {
			shown += string(j)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		shown += log.String()
		for i, leak := range leaks {
			if strings.Contains(shown, leak) {
				t.Errorf("%s shows secret %d", name, i)
			}
		}
	}
}

func TestAttackGuessing(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	_, key := b.create("admin")
	for range 200 {
		var guess [secretBytes]byte
		if _, err := rand.Read(guess[:]); err != nil {
			t.Fatal(err)
		}
		b.refused(formatKey(key.ID, guess), ErrInvalid)
	}
	b.refused(formatKey(key.ID, [secretBytes]byte{}), ErrInvalid)
}

func TestAttackEveryBitOfTheSecretCounts(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.create("admin")
	raw, err := keyEncoding.DecodeString(secret[secretStart:checksumStart])
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * secretBytes {
		flipped := [secretBytes]byte(raw)
		flipped[bit/8] ^= 1 << (bit % 8)
		b.refused(formatKey(key.ID, flipped), ErrInvalid)
	}
}

func TestAttackTruncatedAndPadded(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, _ := b.create("admin")
	for n := range len(secret) {
		b.refused(secret[:n], ErrInvalid)
		b.refused(secret[n+1:], ErrInvalid)
	}
	for _, s := range []string{secret + "x", " " + secret, secret + "\n", secret + "\x00", "Bearer " + secret, strings.ToUpper(secret), strings.Repeat("x", 1<<20)} {
		b.refused(s, ErrInvalid)
	}
}

func TestAttackSwappedIDAndSecret(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	one, _ := b.create("admin")
	two, _ := b.create("invoke:default/*")
	b.refused(one[:secretStart]+two[secretStart:], ErrInvalid)
	b.refused(mend(one[:secretStart]+two[secretStart:]), ErrInvalid)
	b.refused(mend(two[:secretStart]+one[secretStart:]), ErrInvalid)
}

// Whoever can write to the store copies a record whose secret they know under the
// id of another key, or gives their own key other scopes' id.
func TestAttackRecordUnderAnotherID(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	mine, me := b.create("invoke:default/*")
	theirs, admin := b.create("admin")
	record := func(id string) keyRecord {
		var rec keyRecord
		if err := json.Unmarshal(b.store.entries["key."+id].Value, &rec); err != nil {
			t.Fatal(err)
		}
		return rec
	}
	put := func(under string, rec keyRecord) {
		v, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		b.store.entries["key."+under] = state.Entry{Key: "key." + under, Value: v, Revision: 1000}
	}
	// As it is, under the other key's name: refused on load, and reported.
	put(admin.ID, record(me.ID))
	b.reopen()
	if fs := b.Faults(); len(fs) != 1 || fs[0].Key != "key."+admin.ID {
		t.Errorf("faults %v", fs)
	}
	b.refused(theirs, ErrInvalid)
	// With the id put right: the digest is bound to the id, so the secret is no good.
	rec := record(me.ID)
	rec.ID, rec.Scopes = admin.ID, []string{"admin"}
	put(admin.ID, rec)
	b.reopen()
	b.refused(mend(keyPrefix+admin.ID+"_"+mine[secretStart:]), ErrInvalid)
	b.refused(theirs, ErrInvalid)
	if _, err := b.Verify(mine); err != nil {
		t.Errorf("the key that was left alone: %v", err)
	}
}

func TestAttackWrongChecksum(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, _ := b.create("admin")
	for i := checksumStart; i < keyLength; i++ {
		for _, c := range "0123456789abcdefABCDEF_\n" {
			if byte(c) != secret[i] {
				b.refused(secret[:i]+string(c)+secret[i+1:], ErrInvalid)
			}
		}
	}
}

// One secret has one text: no stray bits, no line breaks, no other alphabet.
func TestAttackOtherSpellingsOfAKey(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, _ := b.create("admin")
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, secret[checksumStart-1])
	for stray := 1; stray < 4; stray++ {
		b.refused(mend(secret[:checksumStart-1]+alphabet[last|stray:][:1]+secret[checksumStart:]), ErrInvalid)
	}
	for _, c := range "\r\n+/= \x00" {
		for _, i := range []int{secretStart, secretStart + 7, checksumStart - 1} {
			b.refused(mend(secret[:i]+string(c)+secret[i+1:]), ErrInvalid)
		}
	}
	b.refused(mend(strings.ToUpper(secret[:secretStart])+secret[secretStart:]), ErrInvalid)
	// A secret of fewer bytes, spelled out to full length with line breaks.
	id, _, err := parseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	b.refused(mend(keyPrefix+id+"_"+strings.Repeat("\n", secretLength)+"00000000"), ErrInvalid)
}

// Unknown and known ids differ in nothing but the record that they are compared
// with; a revoked or expired key is told apart only to who has its secret.
func TestAttackTellingKnownIDsApart(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.create("admin")
	if err := b.Revoke(context.Background(), key.ID, "x"); err != nil {
		t.Fatal(err)
	}
	_, wrongSecret := b.Verify(formatKey(key.ID, [secretBytes]byte{1}))
	_, unknown := b.Verify(formatKey(strings.Repeat("a", idLength), [secretBytes]byte{1}))
	if !errors.Is(wrongSecret, ErrInvalid) || wrongSecret.Error() != unknown.Error() {
		t.Errorf("a revoked id gives %v and an unknown one %v", wrongSecret, unknown)
	}
	b.refused(secret, ErrRevoked)
	// The stand-in is compared in full, and is nobody even for who hits it.
	if b.nobody == nil || b.nobody.print == (fingerprint{}) {
		t.Fatal("unknown ids are compared with nothing")
	}
	text := formatKey(strings.Repeat("b", idLength), [secretBytes]byte{2})
	_, print, err := parseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	b.nobody.print = print
	b.refused(text, ErrInvalid)
}

func TestAttackRevokedKey(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.create("admin")
	kept, _ := b.create("admin")
	if err := b.Revoke(context.Background(), key.ID, "key:op"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b.refused(secret, ErrRevoked)
		if _, err := b.Verify(kept); err != nil {
			t.Error(err)
		}
		b.reopen()
	}
	keys, err := b.List(context.Background())
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v, %v", keys, err)
	}
	i := slices.IndexFunc(keys, func(k Key) bool { return k.ID == key.ID })
	when := keys[i].Revoked
	if !when.Equal(b.clock.Now()) || keys[i].RevokedBy != "key:op" {
		t.Errorf("listed %+v", keys[i])
	}
	b.clock.advance(time.Hour)
	if err := b.Revoke(context.Background(), key.ID, "key:else"); err != nil {
		t.Error(err)
	}
	if keys, _ := b.List(context.Background()); !keys[i].Revoked.Equal(when) || keys[i].RevokedBy != "key:op" {
		t.Errorf("revoking again changed %+v", keys[i])
	}
	if err := b.Revoke(context.Background(), "nosuchkey", "x"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

// A store that is down must not keep a leaked key alive.
func TestRevocationHoldsThoughTheStoreFails(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"get", "update"} {
		b := newKeyBench(t)
		secret, key := b.create("admin")
		b.store.fail = func(o string) error {
			if o == op {
				return errInjected
			}
			return nil
		}
		err := b.Revoke(context.Background(), key.ID, "x")
		if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), "revoke it again") {
			t.Errorf("%s: error %v", op, err)
		}
		b.refused(secret, ErrRevoked)
		b.store.fail = nil
		if err := b.Revoke(context.Background(), key.ID, "x"); err != nil {
			t.Errorf("%s, again: %v", op, err)
		}
		b.reopen()
		b.refused(secret, ErrRevoked)
	}
}

func TestLostAnswersOfTheStore(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	b.store.lose = func(string) error { return errInjected }
	secret, key := b.create("admin")
	if err := b.Revoke(context.Background(), key.ID, "x"); err != nil {
		t.Error(err)
	}
	b.reopen()
	b.refused(secret, ErrRevoked)

	b.store.fail = func(op string) error {
		if op == "create" {
			return errInjected
		}
		return nil
	}
	if secret, _, err := b.Create(context.Background(), NewKey{Scopes: []Scope{{Action: Admin}}}); !errors.Is(err, errInjected) || secret != "" {
		t.Errorf("a key that is not stored was handed out, error %v", err)
	}
}

func TestAttackExpiredKey(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	ends := b.clock.Now().Add(time.Hour)
	secret, _, err := b.Create(context.Background(), NewKey{Scopes: []Scope{{Action: Admin}}, Expires: ends})
	if err != nil {
		t.Fatal(err)
	}
	b.clock.advance(time.Hour - time.Nanosecond)
	if _, err := b.Verify(secret); err != nil {
		t.Errorf("before its end: %v", err)
	}
	b.clock.advance(time.Nanosecond)
	for range 2 {
		b.refused(secret, ErrExpired)
		b.reopen()
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	admin := []Scope{{Action: Admin}}
	for name, c := range map[string]struct {
		n     NewKey
		field string
	}{
		"no scopes":             {NewKey{}, "scopes"},
		"empty scope":           {NewKey{Scopes: []Scope{{}}}, "scopes"},
		"unknown action":        {NewKey{Scopes: []Scope{{"own", "*", "*"}}}, "scopes"},
		"namespace with slash":  {NewKey{Scopes: []Scope{{Invoke, "a/b", "*"}}}, "scopes"},
		"too many scopes":       {NewKey{Scopes: make([]Scope, maxScopes+1)}, "scopes"},
		"expired from birth":    {NewKey{Scopes: admin, Expires: b.clock.Now()}, "expires"},
		"long name":             {NewKey{Scopes: admin, Name: strings.Repeat("x", maxKeyName+1)}, "name"},
		"name with a newline":   {NewKey{Scopes: admin, Name: "a\nb"}, "name"},
		"name that is not text": {NewKey{Scopes: admin, Name: "\xff"}, "name"},
	} {
		secret, _, err := b.Create(context.Background(), c.n)
		var fe *FieldError
		if !errors.As(err, &fe) || fe.Field != c.field || secret != "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if len(b.store.entries) != 0 {
		t.Error("something was stored")
	}
	k, err := OpenKeys(context.Background(), b.store, b.seal, b.clock.Now, io.MultiReader(io.LimitReader(rand.Reader, 40)))
	if err != nil {
		t.Fatal(err)
	}
	if secret, _, err := k.Create(context.Background(), NewKey{Scopes: admin}); err == nil || secret != "" {
		t.Error("a key was made without enough randomness")
	}
}

// The checksum is the one that scanners know.
func TestChecksumIsCRC32(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "a", "123456789", strings.Repeat("xyz", 30)} {
		if got := checksum(s); string(got[:]) != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(s))) {
			t.Errorf("%q: %s", s, got)
		}
	}
}

func TestAdminScopeIsStoredInOneForm(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	_, key, err := b.Create(context.Background(), NewKey{Scopes: []Scope{{Admin, "shop", "cart"}}})
	if err != nil || key.Scopes[0] != (Scope{Admin, "*", "*"}) {
		t.Errorf("%+v, %v", key, err)
	}
}

func TestTamperedKeyRecordAuthenticatesNobody(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func([]byte) []byte{
		"truncated":      func(b []byte) []byte { return b[:len(b)/2] },
		"empty":          func([]byte) []byte { return nil },
		"unknown member": func(b []byte) []byte { return bytes.Replace(b, []byte(`"form":1`), []byte(`"form":1,"x":1`), 1) },
		"other form":     func(b []byte) []byte { return bytes.Replace(b, []byte(`"form":1`), []byte(`"form":2`), 1) },
		"bad scope":      func(b []byte) []byte { return bytes.Replace(b, []byte(`read:`), []byte(`root:`), 1) },
		"short digest":   func(b []byte) []byte { return append(b[:len(b)-4:len(b)-4], `"}`...) },
		"two values":     func(b []byte) []byte { return append(b, "{}"...) },
	} {
		b := newKeyBench(t)
		secret, key := b.create("read:default/*")
		good, _ := b.create("admin")
		e := b.store.entries["key."+key.ID]
		digest := e.Value[bytes.Index(e.Value, []byte(`"sha256":"`))+10:][:20]
		e.Value = edit(slices.Clone(e.Value))
		b.store.entries["key."+key.ID] = e
		b.reopen()
		b.refused(secret, ErrInvalid)
		fs := b.Faults()
		if len(fs) != 1 || fs[0].Key != "key."+key.ID || strings.Contains(fs[0].Reason, string(digest)) {
			t.Errorf("%s: faults %v", name, fs)
		}
		if _, err := b.Verify(good); err != nil {
			t.Errorf("%s: the other key: %v", name, err)
		}
	}
}

// Revocation is effective at once under load: a Verify that begins after Revoke
// returned never succeeds.
func TestHammerKeys(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	stays, _ := b.create("admin")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				secret, key, err := b.Create(context.Background(), NewKey{Scopes: []Scope{{Invoke, "*", "*"}}})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := b.Verify(secret); err != nil {
					t.Error(err)
				}
				if err := b.Revoke(context.Background(), key.ID, "x"); err != nil {
					t.Error(err)
				}
				b.refused(secret, ErrRevoked)
			}
		})
		wg.Go(func() {
			for range 500 {
				if _, err := b.Verify(stays); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if keys, err := b.List(context.Background()); err != nil || len(keys) != 81 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func TestOpenKeysNeedsAllItsParts(t *testing.T) {
	t.Parallel()
	m, c, seal := newMemory(), newClock(), newSealer(t)
	if _, err := OpenKeys(context.Background(), nil, seal, c.Now, rand.Reader); err == nil {
		t.Error("no store")
	}
	if _, err := OpenKeys(context.Background(), m, seal, nil, rand.Reader); err == nil {
		t.Error("no clock")
	}
	if _, err := OpenKeys(context.Background(), m, nil, c.Now, rand.Reader); err == nil {
		t.Error("no sealer")
	}
	if _, err := OpenKeys(context.Background(), m, seal, c.Now, nil); err == nil {
		t.Error("no randomness")
	}
	m.fail = func(string) error { return errInjected }
	if _, err := OpenKeys(context.Background(), m, seal, c.Now, rand.Reader); !errors.Is(err, errInjected) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(formatKey(strings.Repeat("a", idLength), [secretBytes]byte{1, 2, 3}))
	f.Add(formatKey("abcdefgh234567zz", [secretBytes]byte{31: 0xff}))
	f.Add("cm_")
	f.Add(formatKey("ABCDEFGH234567ZZ", [secretBytes]byte{1}))
	f.Add(formatKey("key.abc*>/../.._", [secretBytes]byte{1}))
	f.Add(mend(keyPrefix + strings.Repeat("a", idLength) + "_" + strings.Repeat("\n", secretLength) + "00000000"))
	f.Fuzz(func(t *testing.T, text string) {
		check := func(text string) {
			id, print, err := parseKey(text)
			if err != nil {
				return
			}
			// Whatever is taken is the one text of its key.
			raw, err := keyEncoding.DecodeString(text[secretStart:checksumStart])
			if err != nil || len(raw) != secretBytes || !validID(id) || formatKey(id, [secretBytes]byte(raw)) != text || print == (fingerprint{}) {
				t.Errorf("%q was taken", text)
			}
		}
		check(text)
		if len(text) >= checksumStart { // past the checksum, to what lies behind it
			check(mend(text))
		}
	})
}

func FuzzParseScope(f *testing.F) {
	for _, s := range []string{"admin", "invoke:*/*", "read:default/hello", "deploy:a/*", "admin:*/*", "invoke:a", "invoke:/", "own:a/b", "invoke:a/b/c", "invoke:a:b/c", "fetch:a/2024-logs", "store:a/*", "store:a/-b", "store:a/b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScope(text)
		if err != nil {
			if s != (Scope{}) {
				t.Errorf("%q: an error and %v", text, s)
			}
			return
		}
		if s.String() != text {
			t.Errorf("%q reads as %q", text, s.String())
		}
		if text != "admin" && s.Action == Admin {
			t.Errorf("%q gives admin", text)
		}
		p := Principal{Scopes: []Scope{s}}
		if s.Action != Admin {
			for _, a := range []Action{Invoke, Read, Deploy, Publish, Connect, FetchData, StoreData, Admin} {
				if a != s.Action && (a != FetchData || s.Action != StoreData) && p.May(a, function.Ref{Namespace: s.Namespace, Name: s.Function}) {
					t.Errorf("%q allows %s", text, a)
				}
			}
		}
	})
}

func TestScopes(t *testing.T) {
	t.Parallel()
	on := func(ns, name string) function.Ref { return function.Ref{Namespace: ns, Name: name} }
	for _, c := range []struct {
		scope string
		a     Action
		ref   function.Ref
		want  bool
	}{
		{"admin", Admin, on("*", "*"), true},
		{"admin", Invoke, on("a", "b"), true},
		{"invoke:a/b", Invoke, on("a", "b"), true},
		{"invoke:a/b", Invoke, on("a", "c"), false},
		{"invoke:a/b", Invoke, on("c", "b"), false},
		{"invoke:a/b", Read, on("a", "b"), false},
		{"invoke:a/*", Invoke, on("a", "c"), true},
		{"invoke:a/*", Invoke, on("a", "*"), true},
		{"invoke:a/b", Invoke, on("a", "*"), false},
		{"invoke:*/b", Invoke, on("c", "b"), true},
		{"invoke:*/*", Admin, on("*", "*"), false},
		{"deploy:*/*", Invoke, on("a", "b"), false},
		{"fetch:a/2024-logs", FetchData, on("a", "2024-logs"), true},
		{"fetch:a/2024-logs", FetchData, on("b", "2024-logs"), false},
		{"fetch:a/logs", StoreData, on("a", "logs"), false},
		{"store:a/logs", StoreData, on("a", "logs"), true},
		{"store:a/logs", FetchData, on("a", "logs"), true},
		{"store:a/logs", FetchData, on("a", "*"), false},
		{"store:a/*", FetchData, on("a", "*"), true},
	} {
		s, err := ParseScope(c.scope)
		if err != nil {
			t.Fatal(err)
		}
		if got := (Principal{Scopes: []Scope{s}}).May(c.a, c.ref); got != c.want {
			t.Errorf("%s: may %s on %s: %v", c.scope, c.a, c.ref, got)
		}
	}
	if (Principal{}).May(Invoke, on("a", "b")) || Anonymous().May(Read, on("a", "b")) {
		t.Error("nobody may do something")
	}
}

// TestAuthorityMatrix tries every action with every scope: each allows itself alone, but
// that admin allows all, and that who stores may read.
func TestAuthorityMatrix(t *testing.T) {
	t.Parallel()
	all := []Action{Invoke, Read, Deploy, Publish, Connect, FetchData, StoreData, Admin}
	refs := []function.Ref{{Namespace: "shop", Name: "cart"}, {Namespace: "shop", Name: "*"}, {Namespace: "*", Name: "*"}, {Namespace: "other", Name: "cart"}}
	for _, has := range all {
		for _, scope := range []Scope{{has, "shop", "cart"}, {has, "shop", "*"}, {has, "*", "*"}} {
			p := Principal{Scopes: []Scope{scope}}
			for _, asked := range all {
				for _, ref := range refs {
					same := asked == has || has == StoreData && asked == FetchData
					reaches := (scope.Namespace == "*" || scope.Namespace == ref.Namespace) && (scope.Function == "*" || scope.Function == ref.Name)
					if want := has == Admin || same && reaches; p.May(asked, ref) != want {
						t.Errorf("%s: may %s on %s: %v", scope, asked, ref, !want)
					}
				}
			}
		}
	}
}

// The names of buckets begin with a digit, those of functions do not; neither leads out
// of its place.
func TestScopesOfBuckets(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"fetch:shop/photos": true, "store:shop/2024-logs": true, "store:*/*": true, "fetch:shop/*": true, "store:shop/" + strings.Repeat("a", 63): true,
		"invoke:shop/2024-logs": false, "store:2024/logs": false, "store:shop/a.b": false, "store:shop/-a": false, "store:shop/a-": false, "store:shop/": false,
		"fetch:shop/A": false, "fetch:shop/a*": false, "fetch:shop/..": false, "fetch:shop": false, "fetch": false, "store:shop/" + strings.Repeat("a", 64): false,
	} {
		if s, err := ParseScope(text); (err == nil) != want || want && s.String() != text {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
}

func TestVerifyAllocatesNothing(t *testing.T) {
	b := newKeyBench(t)
	secret, _ := b.create("admin")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := b.Verify(secret); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	kb := newKeyBench(b)
	for range 1000 {
		kb.create("admin")
	}
	secret, _ := kb.create("invoke:*/*")
	unknown := formatKey(strings.Repeat("a", idLength), [secretBytes]byte{1})
	for name, s := range map[string]string{"known": secret, "unknown": unknown} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := kb.Verify(s); (err == nil) != (s == secret) {
					b.Fatal(err)
				}
			}
		})
	}
}
