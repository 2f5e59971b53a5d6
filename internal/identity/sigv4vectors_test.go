package identity

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What others signed: botocore, AWS's own vectors, and what fuzzing comes up with.

// A request that botocore 1.43.11 signed, word for word, so that the test of ours
// does not rest on our own signer alone where Python is missing.
func TestWhatBotocoreSignedOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ target, date, signature string }{
		{"/2015-03-31/functions/hello/invocations", "20260301T120000Z", "dbb20836d4ac010092adac52c932e129520e4149cbf1986a4230e9a8a347e8a5"},
		{"/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A000000000000%3Afunction%3Ashop_cart%3Alive/invocations?Qualifier=%24LATEST&A=b%20c", "20260301T120000Z", "830a12dd84a6fdec1a534f0a37ac1cb47112e49a0f74762765cd14cf5be39db3"},
	} {
		r := &SignedRequest{Method: "POST", Target: c.target, Host: "node.example:8443", Header: http.Header{
			"Content-Type": {"application/json"}, "X-Amz-Date": {c.date}, "X-Amz-Log-Type": {"Tail"},
		}}
		a, err := parseAuthorization("AWS4-HMAC-SHA256 Credential=CASEK7F3Q2M5X4B6C2D5/20260301/eu-central-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-log-type, Signature=" + c.signature)
		if err != nil {
			t.Fatal(err)
		}
		head, err := canonicalHead(r, a.signed)
		if err != nil {
			t.Fatal(err)
		}
		sig := &Signature{head: head, scope: a.scope, day: a.day, region: a.region, service: a.service, date: c.date}
		sum := sha256.Sum256([]byte(oneBody))
		if got := sig.sign([]byte("cm_awssigv4_notAsecretNotAsecretNotAs"), hex.EncodeToString(sum[:])); hex.EncodeToString(got) != c.signature {
			t.Errorf("%s: %x", c.target, got)
		}
	}
}

// signedByBotocore is one line of testdata/sign.py.
type signedByBotocore struct {
	Method, Host, Target string
	Header               [][2]string
	Body                 []byte
}

func (s *signedByBotocore) request() *SignedRequest {
	h := http.Header{}
	for _, f := range s.Header {
		h.Add(f[0], f[1])
	}
	return &SignedRequest{Method: s.Method, Target: s.Target, Host: s.Host, Header: h}
}

func TestEveryRequestThatBotocoreSigns(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	if err := exec.CommandContext(t.Context(), python, "-c", "import botocore").Run(); err != nil {
		t.Skip("python3 has no botocore")
	}
	b := newKeyBench(t)
	b.clock.now = time.Now()
	secret, key := b.accessKey()
	const count = 400
	cmd := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "sign.py"))
	cmd.Stdin = strings.NewReader(fmt.Sprintln(key.AccessKeyID(), secret, count))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Buffer(nil, 1<<20); lines.Scan(); n++ {
		var s signedByBotocore
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		p, err := b.check(s.request(), string(s.Body))
		if err != nil || p.ID != key.ID {
			t.Errorf("refused: %v %s", err, s.Target)
		}
		for name, bend := range map[string]func(*SignedRequest){
			"path": func(r *SignedRequest) { r.Target = "/x" + r.Target },
			"query": func(r *SignedRequest) {
				r.Target += map[bool]string{true: "&", false: "?"}[strings.Contains(r.Target, "?")] + "zz=1"
			},
			"host":   func(r *SignedRequest) { r.Host += "0" },
			"method": func(r *SignedRequest) { r.Method = "PATCH" },
		} {
			r := s.request()
			bend(r)
			if _, err := b.check(r, string(s.Body)); err == nil {
				t.Errorf("accepted with another %s: %s", name, s.Target)
			}
		}
		if _, err := b.check(s.request(), string(s.Body)+"x"); err == nil {
			t.Errorf("accepted with another body: %s", s.Target)
		}
	}
	if n != count {
		t.Errorf("%d requests were signed", n)
	}
}

// The vectors of AWS, where they are: they come with the crate aws-sigv4.
func TestAWSTestSuite(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CASEMATE_SIGV4_SUITE")
	if dir == "" {
		home, _ := os.UserHomeDir()
		found, _ := filepath.Glob(filepath.Join(home, ".cargo", "registry", "src", "*", "aws-sigv4-*", "aws-signing-test-suite", "v4"))
		if len(found) == 0 {
			t.Skip("the vectors are not here: fetch the crate aws-sigv4, or name their directory in CASEMATE_SIGV4_SUITE")
		}
		dir = found[0]
	}
	cases, err := filepath.Glob(filepath.Join(dir, "*", "header-signed-request.txt"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no vectors in %s", dir)
	}
	ran := 0
	for _, file := range cases {
		name := filepath.Base(filepath.Dir(file))
		if strings.HasSuffix(name, "-normalized") && name != "get-space-normalized" {
			continue // paths with empty or dot segments never reach a signature here
		}
		if strings.HasPrefix(name, "double-") {
			continue // what these two hold is of different dates, and no header is signed in one
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r, body := parseVector(string(text))
		a, err := parseAuthorization(r.Header.Get("Authorization"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		head, err := canonicalHead(r, a.signed)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sum := sha256.Sum256([]byte(body))
		digest := hex.EncodeToString(sum[:])
		want, err := os.ReadFile(filepath.Join(filepath.Dir(file), "header-canonical-request.txt"))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(head) + digest; got != string(want) {
			t.Errorf("%s: canonical request\n%s\nwant\n%s", name, got, want)
		}
		var with struct {
			Credentials struct {
				Secret string `json:"secret_access_key"`
			} `json:"credentials"`
		}
		settings, err := os.ReadFile(filepath.Join(filepath.Dir(file), "context.json"))
		if err != nil || json.Unmarshal(settings, &with) != nil {
			t.Fatalf("%s: no context", name)
		}
		sig := &Signature{head: head, scope: a.scope, day: a.day, region: a.region, service: a.service, date: r.Header.Get("X-Amz-Date")}
		if got := sig.sign([]byte(with.Credentials.Secret), digest); !bytes.Equal(got, a.signature[:]) {
			t.Errorf("%s: signature %x, want %x", name, got, a.signature)
		}
		ran++
	}
	if ran < 25 {
		t.Errorf("only %d vectors ran", ran)
	}
}

// parseVector reads a request as the suite writes it, which no HTTP parser would
// take: paths hold blanks, and values run over several lines.
func parseVector(text string) (*SignedRequest, string) {
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	first := lines[0]
	method, rest, _ := strings.Cut(first, " ")
	r := &SignedRequest{Method: method, Target: strings.TrimSuffix(rest, " HTTP/1.1"), Header: http.Header{}}
	last := ""
	for _, line := range lines[1:] {
		if strings.HasPrefix(line, " ") {
			v := r.Header[last]
			v[len(v)-1] += " " + line
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		last = http.CanonicalHeaderKey(name)
		r.Header.Add(name, value)
	}
	r.Host = r.Header.Get("Host")
	return r, body
}

func FuzzParseAuthorization(f *testing.F) {
	good := "AWS4-HMAC-SHA256 Credential=CASEK7F3Q2M5X4B6C2D5/20260301/eu-central-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("ab", 32)
	for _, s := range []string{good, strings.ReplaceAll(good, ", ", ","), "AWS4-HMAC-SHA256", "Bearer x", strings.Replace(good, "host;", ";;", 1), strings.Replace(good, "=", "", 1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAuthorization(text)
		if err != nil {
			return
		}
		// What is accepted says the same when it is written in the one plain way.
		again := fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%x", sigAlgorithm, a.accessKey, a.scope, strings.Join(a.signed, ";"), a.signature)
		b, err := parseAuthorization(again)
		if err != nil || b.scope != a.scope || b.accessKey != a.accessKey || b.signature != a.signature || strings.Join(b.signed, ";") != strings.Join(a.signed, ";") {
			t.Errorf("%q became %q: %v", text, again, err)
		}
		if strings.ContainsAny(a.scope, "\n\r,= ") || strings.Count(a.scope, "/") != 3 || strings.Join(a.signed, ";") != strings.ToLower(strings.Join(a.signed, ";")) {
			t.Errorf("accepted %q", text)
		}
	})
}

// Two requests that are signed alike are the same request: the canonical form can
// be read back.
func FuzzCanonicalHead(f *testing.F) {
	f.Add("GET", "/a?b=c", "node", "v")
	f.Add("POST", "/2015-03-31/functions/arn%3Aaws/invocations?Qualifier=%24LATEST", "h:1", " a  b ")
	f.Add("GET", "/a%0Ab?x=%0A", "h", "a\tb")
	f.Fuzz(func(t *testing.T, method, target, host, value string) {
		if strings.ContainsAny(method+target+host+value, "\r\n") {
			return // net/http lets none of them through
		}
		r := &SignedRequest{Method: method, Target: target, Host: host, Header: http.Header{"X-Amz-Date": {value}}}
		head, err := canonicalHead(r, []string{"host", "x-amz-date"})
		if err != nil {
			return
		}
		lines := strings.Split(string(head), "\n")
		if len(lines) != 8 || lines[0] != method || lines[5] != "" || lines[6] != "host;x-amz-date" || lines[7] != "" {
			t.Errorf("%q", head)
		}
		// Canonical is a fixed point.
		if _, query, _ := strings.Cut(target, "?"); query != "" {
			again, ok := canonicalQuery(lines[2])
			if !ok || again != lines[2] {
				t.Errorf("%q became %q", lines[2], again)
			}
		}
	})
}
