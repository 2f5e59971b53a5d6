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
	// is kept, sealed. It is good for the Lambda API of the gateway and nothing else.
	KindAWS KeyKind = "aws"
)

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
