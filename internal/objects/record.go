package objects

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/objects/content"
	"github.com/casemate-dev/casemate/internal/state"
)

// Names of records. A key of an object may hold any character and be longer than a KV's
// key, so its digest stands for it; the record holds the key itself.
//
//	b.NS.BUCKET                 a bucket
//	o.NS.BUCKET.DIGEST          a key with its versions
//	u.NS.BUCKET.UPLOAD          an upload under way
//	p.NS.BUCKET.UPLOAD.NUMBER   a part of it
func bucketName(ns, bucket string) string { return "b." + ns + "." + bucket }

func objectName(ns, bucket, key string) string {
	sum := sha256.Sum256([]byte(key))
	return "o." + ns + "." + bucket + "." + base64.RawURLEncoding.EncodeToString(sum[:])
}

func uploadName(ns, bucket, id string) string { return "u." + ns + "." + bucket + "." + id }

func partName(ns, bucket, id string, number int) string {
	return fmt.Sprintf("p.%s.%s.%s.%d", ns, bucket, id, number)
}

// bucketRecord is what is stored of a bucket.
type bucketRecord struct {
	Form       int       `json:"v"`
	Created    time.Time `json:"created"`
	By         string    `json:"by,omitempty"`
	Versioning string    `json:"versioning,omitempty"`
}

// objectRecord is what is stored of a key: all of its versions, so that what the current
// one is changes at once.
type objectRecord struct {
	Form     int       `json:"v"`
	Key      string    `json:"key"`
	Newest   uint64    `json:"newest,omitempty"`   // no version is of a later revision; 0: the record's own
	Versions []version `json:"versions,omitempty"` // the newest, which is the current one, first
	Removals []removal `json:"removals,omitempty"` // the newest first
}

// version is one version of an object, or a delete marker.
type version struct {
	ID        string    `json:"id"` // drawn at random, also of the version called null
	Null      bool      `json:"null,omitempty"`
	Marker    bool      `json:"marker,omitempty"`
	After     uint64    `json:"after"` // no older version is of a later revision
	Operation string    `json:"op"`
	Modified  time.Time `json:"modified"`
	By        string    `json:"by,omitempty"`
	ETag      string    `json:"etag,omitempty"`
	Size      int64     `json:"size,omitempty"`
	Attributes
	Checksums    map[string]string `json:"checksums,omitempty"`
	ChecksumType string            `json:"checksumType,omitempty"`
	Key          []byte            `json:"dataKey,omitempty"`  // wrapped
	Content      string            `json:"content,omitempty"`  // of the bytes, or of the manifest
	Manifest     int64             `json:"manifest,omitempty"` // length of the list of parts, when Parts > 0
	Parts        int               `json:"parts,omitempty"`
}

// removal remembers that something was removed, so that it can be told of later.
type removal struct {
	ID        string    `json:"id"`
	After     uint64    `json:"after"` // the record's revision before
	VersionID string    `json:"version,omitempty"`
	Time      time.Time `json:"time"`
	By        string    `json:"by,omitempty"`
}

// upTo is a revision that no version of the record, which is of rev, is later than.
func (r *objectRecord) upTo(rev uint64) uint64 {
	if r.Newest != 0 {
		return r.Newest
	}
	return rev
}

// unchanged notes, before the record of a revision is stored again, that its versions are
// not newer for it.
func (r *objectRecord) unchanged(rev uint64) {
	r.Newest = r.upTo(rev)
}

// recordForm is the number of the records' form.
const recordForm = 1

// Attributes are what a client says about an object.
type Attributes struct {
	ContentType string            `json:"contentType,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"` // Cache-Control, Content-Encoding, …
	Meta        map[string]string `json:"meta,omitempty"`    // x-amz-meta-, names in lower case
	Tags        map[string]string `json:"tags,omitempty"`
}

// kept are the headers that Attributes.Headers may hold.
var kept = map[string]bool{
	"Cache-Control": true, "Content-Disposition": true, "Content-Encoding": true, "Content-Language": true, "Expires": true,
}

func (a *Attributes) check() error {
	if err := headerText(a.ContentType); err != nil {
		return err
	}
	for k, v := range a.Headers {
		if !kept[k] {
			return fmt.Errorf("header %.40q: %w", k, ErrMeta)
		}
		if err := headerText(v); err != nil {
			return err
		}
	}
	size := 0
	for k, v := range a.Meta {
		size += len(k) + len(v)
		if k == "" || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return fmt.Errorf("user metadata %.40q: %w", k, ErrMeta)
		}
		if !plainText(v) {
			return fmt.Errorf("user metadata %.40q: %w", k, ErrMeta)
		}
	}
	if size > MaxMeta {
		return fmt.Errorf("user metadata has %d bytes: %w", size, errors.Join(ErrMetaLarge, ErrMeta))
	}
	return checkTags(a.Tags)
}

func checkTags(tags map[string]string) error {
	if len(tags) > MaxTags {
		return fmt.Errorf("more than %d tags: %w", MaxTags, ErrMeta)
	}
	for k, v := range tags {
		if k == "" || utf8.RuneCountInString(k) > MaxTagName || utf8.RuneCountInString(v) > MaxTagValue || !plainText(k) || !plainText(v) {
			return fmt.Errorf("tag %.40q: %w", k, ErrMeta)
		}
	}
	return nil
}

func headerText(s string) error {
	if len(s) > MaxHeader || !plainText(s) {
		return fmt.Errorf("the value of a header is too long or not text: %w", ErrMeta)
	}
	return nil
}

// plainText refuses what could end a header line or is no XML character.
func plainText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == 0xfffe || r == 0xffff {
			return false
		}
	}
	return true
}

// CheckKey refuses keys that are no text, and those that could lead out of a folder for
// somebody who makes file names of keys: with a dot segment or a slash in front.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("it must have 1 to %d bytes: %w", MaxKey, ErrKey)
	case len(key) > MaxKey:
		return errors.Join(ErrKeyLong, ErrKey)
	case !plainText(key):
		return fmt.Errorf("it must be UTF-8 without control characters: %w", ErrKey)
	case key[0] == '/':
		return fmt.Errorf("it must not begin with a slash: %w", ErrKey)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "." || segment == ".." {
			return fmt.Errorf("it must not have the segment %q: %w", segment, ErrKey)
		}
	}
	return nil
}

// CheckBucket refuses names of buckets and namespaces that are not well formed.
func CheckBucket(namespace, bucket string) error {
	if !function.ValidName(namespace) || len(bucket) < 3 || len(bucket) > 63 ||
		strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || bucket[0] == '-' || bucket[len(bucket)-1] == '-' {
		return ErrName
	}
	return nil
}

// versionID is how the version is named to clients.
func (v *version) versionID() string {
	if v.Null {
		return "null"
	}
	return v.ID
}

func encode(r any) ([]byte, error) {
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxRecord {
		return nil, fmt.Errorf("versions of one key: %w", ErrTooMany)
	}
	return b, err
}

func decode[T any](e state.Entry, form func(*T) int) (*T, error) {
	r := new(T)
	if err := json.Unmarshal(e.Value, r); err != nil || form(r) != recordForm {
		return nil, fmt.Errorf("reading record %s: it is malformed: %w", e.Key, state.ErrCorrupt)
	}
	return r, nil
}

func decodeObject(e state.Entry) (*objectRecord, error) {
	r, err := decode(e, func(r *objectRecord) int { return r.Form })
	if err == nil && !strings.HasSuffix(e.Key, objectName("", "", r.Key)[len("o..."):]) {
		return nil, fmt.Errorf("reading record %s: it is that of another key: %w", e.Key, state.ErrCorrupt)
	}
	return r, err
}

func newID() (string, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("drawing an id: %v", err)
	}
	return hex.EncodeToString(raw[:]), nil
}

// wrapper seals data keys.
type wrapper struct{ aead cipher.AEAD }

func newWrapper(key []byte) (*wrapper, error) {
	if len(key) != content.KeySize {
		return nil, fmt.Errorf("the key has %d bytes, want %d", len(key), content.KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &wrapper{aead}, err
}

func wrapContext(ns, bucket, key, id string) []byte {
	return []byte("casemate/1 object key\x00" + ns + "\x00" + bucket + "\x00" + key + "\x00" + id)
}

// draw makes a data key, and wraps it for the version of the object that it is for. Under
// one wrapping key that is fine for 2^32 objects (NIST SP 800-38D, section 8.3).
func (w *wrapper) draw(context []byte) (plain, wrapped []byte, err error) {
	plain = make([]byte, content.KeySize)
	wrapped = make([]byte, w.aead.NonceSize(), w.aead.NonceSize()+content.KeySize+w.aead.Overhead())
	if _, err := rand.Read(plain); err != nil {
		return nil, nil, err
	}
	if _, err := rand.Read(wrapped); err != nil {
		return nil, nil, err
	}
	return plain, w.aead.Seal(wrapped, wrapped, plain, context), nil
}

func (w *wrapper) open(context, wrapped []byte) ([]byte, error) {
	n := w.aead.NonceSize()
	if len(wrapped) < n {
		return nil, state.ErrCorrupt
	}
	plain, err := w.aead.Open(nil, wrapped[:n], wrapped[n:], context)
	if err != nil {
		return nil, fmt.Errorf("opening a data key: %w", state.ErrCorrupt)
	}
	return plain, nil
}

func (a Attributes) clone() Attributes {
	a.Headers, a.Meta, a.Tags = maps.Clone(a.Headers), maps.Clone(a.Meta), maps.Clone(a.Tags)
	return a
}
