package manifest

import (
	"math"
	"regexp"
	"slices"
	"strings"
)

// mask stands in for a secret; its length says nothing.
const mask = "********"

// secret is what looks like one.
type secret struct {
	reason string // completes "NAME = **** …"
	masked string
}

// shape is the form of a well-known kind of credential. Prefix is public: it is
// the same in every credential of the kind.
type shape struct {
	what, prefix string
	form         *regexp.Regexp
}

func shapes() []shape { return credentialShapes }

// credentialShapes is never changed.
var credentialShapes = []shape{
	{"a private key", "-----BEGIN", regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----[^-]*(-----END[A-Z0-9 ]*-----)?`)},
	{"an AWS access key", "", regexp.MustCompile(`\b(AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{12,}\b`)},
	{"a GitHub token", "", regexp.MustCompile(`\b(gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,})`)},
	{"a GitLab token", "", regexp.MustCompile(`\bgl[a-z]{2,4}-[A-Za-z0-9_-]{16,}`)},
	{"a Slack token", "", regexp.MustCompile(`\bxox[a-z]-[A-Za-z0-9-]{8,}`)},
	{"a Casemate API key", "", regexp.MustCompile(`\bcm_[A-Za-z0-9]{8,}_[A-Za-z0-9_-]{16,}`)},
	{"a Stripe key", "", regexp.MustCompile(`\b[sr]k_(live|test)_[A-Za-z0-9]{10,}`)},
	{"a Google API key", "", regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{30,}`)},
	{"an API key", "", regexp.MustCompile(`\b(sk-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{20,}|hvs\.[A-Za-z0-9_-]{20,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|dop_v1_[a-f0-9]{20,})`)},
	{"an age key", "", regexp.MustCompile(`\bAGE-SECRET-KEY-1[0-9A-Z]{20,}`)},
	{"a JSON Web Token", "", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*`)},
	{"a URL with a password", "", regexp.MustCompile(`\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:"']*:[^\s/?#@"']+@`)},
	{"a password in a connection string", "", regexp.MustCompile(`(?i)\b(password|passwd|pwd|accountkey|sharedaccesskey|client_?secret)\s*=\s*[^\s;&"']+`)},
	{"an Authorization header", "", regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}`)},
}

// findSecret reports whether a variable looks like a secret: by its name, by the
// shape of a known credential, or because it is too random to be words.
func findSecret(name, value string) (secret, bool) {
	if value == "" {
		return secret{}, false
	}
	for _, s := range shapes() {
		if found := s.form.FindString(value); found != "" {
			return secret{reason: "looks like " + s.what, masked: publicPrefix(found) + mask}, true
		}
	}
	if secretName(name) && !slices.Contains([]string{"true", "false"}, strings.ToLower(value)) {
		return secret{reason: "looks like a secret, by its name", masked: mask}, true
	}
	if randomRun(value) != "" {
		return secret{reason: "looks like a secret, since it is random and not words", masked: mask}, true
	}
	return secret{}, false
}

// publicPrefix gives the part of a credential that every one of its kind shares.
func publicPrefix(s string) string {
	for _, p := range []string{"AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox", "cm_", "sk_live_", "sk_test_", "rk_live_", "AIza", "eyJ", "-----BEGIN"} {
		if strings.HasPrefix(s, p) {
			return p
		}
	}
	return ""
}

// Words of names. A name that ends in a harmless word describes a secret, and
// is none: TOKEN_URL, PASSWORD_MIN_LENGTH.
var (
	secretSuffixes = []string{"PASSWORD", "PASSWD", "PASSPHRASE", "PASSCODE", "SECRET", "SECRETS", "PASSWORDS", "TOKEN", "APIKEY", "PRIVATEKEY", "SECRETKEY", "ACCESSKEY", "CREDENTIAL", "CREDENTIALS", "PWD"}
	keyKinds       = []string{"API", "PRIVATE", "SECRET", "ACCESS", "ENCRYPTION", "SIGNING", "MASTER", "AUTH", "ACCOUNT", "HMAC", "SSH", "SERVICE", "LICENSE", "SESSION", "COOKIE", "JWT"}
	harmlessWords  = []string{"URL", "URI", "NAME", "TTL", "LENGTH", "HEADER", "TYPE", "FILE", "PATH", "ID", "EXPIRY", "ISSUER", "AUDIENCE", "ENDPOINT", "HOST", "MIN", "MAX", "SIZE", "COUNT", "ENABLED", "LIMIT", "ALG", "ALGORITHM", "FIELD", "SECONDS", "MINUTES", "HOURS", "DAYS", "PREFIX", "POLICY", "REQUIRED", "VERSION", "FORMAT", "REGEX", "PATTERN", "LIFETIME", "TIMEOUT", "BUDGET", "LOCATION"}
	wordPattern    = regexp.MustCompile(`[A-Z]?[a-z]+|[A-Z]+|[0-9]+`)
)

// secretName reports whether a variable of that name holds a secret.
func secretName(name string) bool {
	if len(name) > 256 {
		name = name[:256]
	}
	words := wordPattern.FindAllString(strings.ReplaceAll(name, "-", "_"), -1)
	for len(words) > 1 && (words[len(words)-1][0] <= '9' || slices.Contains([]string{"OLD", "NEW", "CURRENT", "PREVIOUS", "VALUE", "DEV", "PROD", "TEST"}, strings.ToUpper(words[len(words)-1]))) {
		words = words[:len(words)-1]
	}
	if len(words) == 0 || slices.Contains(harmlessWords, strings.ToUpper(words[len(words)-1])) {
		return false
	}
	for i, w := range words {
		w = strings.ToUpper(w)
		if w == "PWD" && len(words) == 1 {
			continue // the working directory
		}
		if (w == "KEY" || w == "KEYS") && i > 0 && slices.Contains(keyKinds, strings.ToUpper(words[i-1])) {
			return true
		}
		for _, s := range secretSuffixes {
			if strings.HasSuffix(w, s) {
				return true
			}
		}
	}
	return false
}

// Bounds of what counts as random.
const (
	minRandom  = 20  // characters
	minEntropy = 3.0 // bits for each character (Shannon)
	// With more entropy than words usually have, less mixing is enough.
	highEntropy = 4.1
	minMixHigh  = 0.15
	minMix      = 0.2 // changes between letters, capitals and digits, for each character
)

var (
	runPattern  = regexp.MustCompile(`[A-Za-z0-9+/=_-]{20,}`)
	uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	hashPattern = regexp.MustCompile(`\bsha(256|384|512)[:-][A-Za-z0-9+/=]+`)
)

// randomRun gives a part of s that is at least 20 characters long and too random
// to be made of words, or "". Digests named as such, and UUIDs, are not secrets.
func randomRun(s string) string {
	s = hashPattern.ReplaceAllString(s, " ")
	for _, run := range runPattern.FindAllString(s, -1) {
		h, least := entropy(run), minMix
		if h >= highEntropy {
			least = minMixHigh
		}
		if h >= minEntropy && mix(run) >= least && !uuidPattern.MatchString(run) {
			return run
		}
	}
	return ""
}

// entropy is Shannon's, in bits for each character.
func entropy(s string) float64 {
	var counts [256]int
	for i := range len(s) {
		counts[s[i]]++
	}
	h := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(len(s))
			h -= p * math.Log2(p)
		}
	}
	return h
}

// mix counts how often a run goes from letter to digit or back, or from a small
// letter to a capital, for each letter or digit in it. Words joined by hyphens,
// slashes or capitals score low, random text high.
func mix(s string) float64 {
	class := func(c byte) int {
		switch {
		case c >= '0' && c <= '9':
			return 1
		case c >= 'a' && c <= 'z':
			return 2
		case c >= 'A' && c <= 'Z':
			return 3
		default:
			return 0
		}
	}
	changes, letters, digits := 0, 0, 0
	for i := range len(s) {
		c := class(s[i])
		switch c {
		case 0:
			continue
		case 1:
			digits++
		default:
			letters++
		}
		if i == 0 {
			continue
		}
		if p := class(s[i-1]); p != 0 && p != c && (p != 3 || c != 2) {
			changes++
		}
	}
	if letters+digits < minRandom*3/4 {
		return 0
	}
	score := float64(changes) / float64(letters+digits)
	if digits == 0 {
		score -= 0.05 // several words in camel case come close
	}
	return score
}

// assignment finds a key and the value written behind it, in YAML or elsewhere.
var assignment = regexp.MustCompile(`(["']?)([A-Za-z_][A-Za-z0-9_-]{0,127})(["']?\s*[:=]\s*)(.+)$`)

// redact masks what looks like a secret in a line of text: credentials, random
// runs, and the rest of a line behind a name that says so.
func redact(s string) string {
	for _, sh := range shapes() {
		s = sh.form.ReplaceAllStringFunc(s, func(found string) string { return publicPrefix(found) + mask })
	}
	for range 8 {
		run := randomRun(s)
		if run == "" {
			break
		}
		s = strings.ReplaceAll(s, run, mask)
	}
	return redactAssignments(s)
}

func redactAssignments(s string) string {
	at := 0
	for range 64 {
		m := assignment.FindStringSubmatchIndex(s[at:])
		if m == nil {
			return s
		}
		name, value := s[at+m[4]:at+m[5]], s[at+m[8]:at+m[9]]
		if secretName(name) && !harmlessValue(value) {
			return s[:at+m[8]] + mask
		}
		at += m[8]
	}
	return s
}

// harmlessValue reports what may stay in sight behind a secret's name: nothing,
// the opening of a block, true or false, and what was masked already.
func harmlessValue(v string) bool { return harmlessPattern.MatchString(v) }

var harmlessPattern = regexp.MustCompile(`^\s*((\||>|\|-|>-)?\s*$|(true|false)\b|\*{8})`)
