package identity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// KeyKind says how a key is presented.
type KeyKind string

const (
	// KindBearer is sent as it is, in Authorization or X-API-Key. Its secret is
	// kept as a digest.
	KindBearer KeyKind = "bearer"
	// KindAWS is an access key: clients of AWS sign with it (Signature Version 4)
	// and never send it. Who checks such a signature needs the secret itself, so it
	// is kept, sealed. It is good for the Lambda API of the gateway and for the object
	// store's door, and for nothing else.
	KindAWS KeyKind = "aws"
)

// awsActions are what the doors that take access keys ask for.
func awsActions() []Action { return []Action{Invoke, Read, FetchData, StoreData} }

// An access key has the form that AWS clients expect: an id of 20 upper-case
// characters and a secret of 40. Both can be told from Amazon's at a glance, and
// the secret is found by whatever looks for keys of ours.
const (
	accessKeyPrefix  = "CASE"         // then the key's id in upper case
	awsSecretPrefix  = "cm_awssigv4_" // then 28 characters of base64url
	awsSecretBytes   = 21             // 168 bits
	awsSecretLength  = 40
	sealedForAWSKey  = "identity.key.aws/" // then the key's id
	sealedForNobody  = sealedForAWSKey + "-"
	accessKeyIDChars = len(accessKeyPrefix) + idLength
)

// AccessKeyID is how AWS clients name the key: AWS_ACCESS_KEY_ID. It is empty for
// a key of another kind.
func (k *Key) AccessKeyID() string {
	if k.Kind != KindAWS {
		return ""
	}
	return accessKeyPrefix + strings.ToUpper(k.ID)
}

// accessKeyOwner gives the id of the key that an access key id names, or "".
func accessKeyOwner(s string) string {
	rest, ok := strings.CutPrefix(s, accessKeyPrefix)
	if !ok || len(s) != accessKeyIDChars || rest != strings.ToUpper(rest) {
		return ""
	}
	return strings.ToLower(rest)
}

// newSecret makes the secret of a key, and leaves in h what it is checked by. The
// caller holds mu.
func (k *Keys) newSecret(h *held) (string, error) {
	if h.key.Kind == KindBearer {
		var raw [secretBytes]byte
		if _, err := io.ReadFull(k.rand, raw[:]); err != nil {
			return "", fmt.Errorf("reading randomness: %v", err)
		}
		secret := formatKey(h.key.ID, raw)
		var err error
		_, h.print, err = parseKey(secret)
		return secret, err
	}
	var raw [awsSecretBytes]byte
	if _, err := io.ReadFull(k.rand, raw[:]); err != nil {
		return "", fmt.Errorf("reading randomness: %v", err)
	}
	secret := awsSecretPrefix + keyEncoding.EncodeToString(raw[:])
	sealed, err := k.seal.Seal(sealedForAWSKey+h.key.ID, []byte(secret))
	if err != nil {
		return "", fmt.Errorf("sealing the secret: %v", err)
	}
	h.sealed = sealed
	return secret, nil
}

// sealNobody gives the stand-in for unknown keys a secret, so that a signature
// under an unknown id is computed like any other. It is a random text that no
// key has.
func (k *Keys) sealNobody() error {
	sealed, err := k.seal.Seal(sealedForNobody, []byte(hex.EncodeToString(k.nobody.print[:])[:awsSecretLength]))
	if err != nil {
		return fmt.Errorf("sealing the stand-in's secret: %v", err)
	}
	k.nobody.sealed = sealed
	return nil
}

// secretOf unseals what signs for h.
func (k *Keys) secretOf(h *held) ([]byte, error) {
	context := sealedForAWSKey + h.key.ID
	if h == k.nobody {
		context = sealedForNobody
	}
	return k.seal.Open(context, h.sealed)
}

// opens reports a sealed secret that is not this key's.
func (k *Keys) opens(h *held) error {
	if h.key.Kind != KindAWS {
		return nil
	}
	secret, err := k.secretOf(h)
	if err != nil || len(secret) != awsSecretLength {
		return errors.New("the record's secret was not sealed for it here")
	}
	return nil
}

// accessKey finds the key that an access key id names, or the stand-in for unknown ones.
func (k *Keys) accessKey(id string) (h *held, known bool) {
	h, known = (*k.index.Load())[accessKeyOwner(id)]
	if !known || h.key.Kind != KindAWS {
		return k.nobody, false
	}
	return h, true
}

// SigningKey derives the key that signs for an access key on a day (form 20060102), in
// a region, for a service, for a door that checks signatures itself: only a signature
// under that key makes its sender p, and only when ok. Of an access key that is
// unknown or has ended it gives a key that nobody has, at the same cost: the door must
// check the signature all the same, and say the same of it.
func (k *Keys) SigningKey(accessKey, day, region, service string) (key []byte, p Principal, ok bool) {
	h, ok := k.accessKey(accessKey)
	if h.ended(k.clock()) != nil {
		h, ok = k.nobody, false
	}
	secret, err := k.secretOf(h)
	if err != nil { // it opened when the key was loaded; the print is as hard to guess
		return signingKey(k.nobody.print[:], day, region, service), Principal{}, false
	}
	key = signingKey(secret, day, region, service)
	clear(secret)
	return key, h.principal, ok
}
