package enginetest_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/engine/js/enginetest"
)

func TestBodies(t *testing.T) {
	big := make([]byte, 6<<20)
	for k := range big {
		big[k] = byte(k * 7 >> 3)
	}
	echo := prepared(t, `export default { async fetch(r) { return new Response(await r.arrayBuffer()) } }`)
	text := prepared(t, `export default { async fetch(r) { return new Response(await r.text()) } }`)
	for _, chunk := range []int{0, 7000} {
		for name, body := range map[string][]byte{
			"empty": {}, "one": {0}, "big": big, "text": []byte("žluťoučký kůň 🐎\n"), "lines": []byte("\n\n{\"a\":1}\n"),
			"edge-1": big[:32767], "edge": big[:32768], "ascii": bytes.Repeat([]byte("abc\n"), 100_000),
		} {
			echo.Chunk, text.Chunk = chunk, chunk
			image := echo.Snapshot()
			if a := handle(t, echo, enginetest.Head{Method: "POST"}, string(body)); !bytes.Equal(a.Body, body) {
				t.Errorf("%s: %d bytes come back as %d, or different", name, len(body), len(a.Body))
			}
			echo.Restore(image)
			want := strings.TrimPrefix(strings.ToValidUTF8(string(body), "\ufffd"), "\ufeff")
			if name == "big" || strings.HasPrefix(name, "edge") {
				continue // ToValidUTF8 joins what the Encoding Standard replaces one by one
			}
			if a := handle(t, text, enginetest.Head{Method: "POST"}, string(body)); string(a.Body) != want {
				t.Errorf("%s: text comes back different", name)
			}
		}
	}
}

// TestUTF8 compares decoding and encoding with Go's, which follows the same tables.
func TestUTF8(t *testing.T) {
	i := prepared(t, `export default { async fetch(r) {
		const b = await r.bytes(), s = new TextDecoder("utf-8", { ignoreBOM: true }).decode(b);
		let fatal = "ok"; try { new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(b) } catch (e) { fatal = e.name }
		const again = new TextEncoder().encode(s);
		const into = new Uint8Array(again.length + 3), n = new TextEncoder().encodeInto(s, into);
		let same = n.written === again.length && n.read === s.length;
		for (let k = 0; k < again.length; k++) same &&= again[k] === into[k];
		return new Response(fatal + " " + same + " " + s);
	} }`)
	random := rand.New(rand.NewPCG(1, 2))
	image := i.Snapshot()
	for k := range 2000 {
		in := make([]byte, random.IntN(24))
		for j := range in {
			switch random.IntN(4) {
			case 0:
				in[j] = byte(random.IntN(128))
			case 1:
				in[j] = []byte{0xe0, 0xed, 0xf0, 0xf4, 0xc2, 0xef, 0xbb, 0xbf, 0xf5, 0xc0}[random.IntN(10)]
			default:
				in[j] = byte(0x80 + random.IntN(128))
			}
		}
		if k%3 == 0 {
			in = []byte(string([]rune(string(in))))
		}
		a := handle(t, i, enginetest.Head{Method: "POST"}, string(in))
		want, fatal := decodeWHATWG(in)
		if string(a.Body) != fatal+" true "+want {
			t.Fatalf("% x decodes to %q, want %q", in, a.Body, fatal+" true "+want)
		}
		i.Restore(image)
	}
}

// decodeWHATWG replaces each maximal subpart of an ill-formed sequence by U+FFFD.
func decodeWHATWG(in []byte) (text, fatal string) {
	var b strings.Builder
	fatal = "ok"
	for len(in) > 0 {
		n := 1
		low, high, more := byte(0x80), byte(0xbf), 0
		switch c := in[0]; {
		case c < 0x80:
		case c >= 0xc2 && c <= 0xdf:
			more = 1
		case c >= 0xe0 && c <= 0xef:
			more = 2
			switch c {
			case 0xe0:
				low = 0xa0
			case 0xed:
				high = 0x9f
			}
		case c >= 0xf0 && c <= 0xf4:
			more = 3
			switch c {
			case 0xf0:
				low = 0x90
			case 0xf4:
				high = 0x8f
			}
		default:
			more = -1
		}
		for ; more > 0 && n < len(in) && in[n] >= low && in[n] <= high; more-- {
			n++
			low, high = 0x80, 0xbf
		}
		if more == 0 {
			b.Write(in[:n])
		} else {
			b.WriteRune('\ufffd')
			fatal = "TypeError"
		}
		in = in[n:]
	}
	return b.String(), fatal
}

func TestHeads(t *testing.T) {
	i := prepared(t, `export default { fetch(r) {
		return Response.json({ url: r.url, method: r.method, headers: [...r.headers], casemate: r.casemate });
	} }`)
	image := i.Snapshot()
	for name, c := range map[string]struct {
		head enginetest.Head
		want string
	}{
		"escapes": {
			enginetest.Head{Path: "/a b/\"ž\"<", Query: "x=1&y=<'>", Headers: map[string][]string{"host": {"Example.COM:443"}}},
			`"https://example.com/a%20b/%22%C5%BE%22%3C?x=1&y=%3C%27%3E"`,
		},
		"port":     {enginetest.Head{Headers: map[string][]string{"host": {"h:8443"}}}, `"https://h:8443/"`},
		"plain":    {enginetest.Head{Headers: map[string][]string{"host": {"h:80"}, "x-forwarded-proto": {"http"}}}, `"http://h/"`},
		"bad host": {enginetest.Head{Headers: map[string][]string{"host": {"h/../evil@x"}}}, `"https://localhost/"`},
		"no host":  {enginetest.Head{Headers: map[string][]string{}}, `"https://localhost/"`},
		"many": {
			enginetest.Head{Headers: map[string][]string{"host": {"h"}, "accept": {"a", "b\\\""}, "x": {}}},
			`"headers":[["accept","a, b\\\""],["host","h"]]`,
		},
		"params": {
			enginetest.Head{ID: "I", Params: map[string]string{"k": "v\n"}, Caller: "me", Deadline: 12},
			`{"id":"I","caller":"me","params":{"k":"v\n"},"trigger":"http","deadline":12}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if a := handle(t, i, c.head, ""); !strings.Contains(string(a.Body), c.want) {
				t.Errorf("answer %s\nlacks %s", a.Body, c.want)
			}
			i.Restore(image)
		})
	}
	for _, line := range []string{"", "{", "[]", "nonsense", `{"path":7}`, `{"path":"/`, `{"a":[}`, `{"path":"\`, "{}x", `{"headers":{"a":["b]}}`} {
		_, err := i.HandleRaw(t.Context(), []byte(line+"\nbody"))
		var f *enginetest.Failure
		if !errors.As(err, &f) || !strings.Contains(f.Log, "head line") {
			t.Errorf("head %q: %v", line, err)
		}
		i.Restore(image)
	}
}

func TestAnswers(t *testing.T) {
	a := handle(t, prepared(t, `export default { fetch() {
		const h = new Headers([["Set-Cookie", "a=1"], ["x-quote", "\"\\\t€".slice(0, 3)], ["set-cookie", "b=2"], ["x-latin", "\u00e9"]]);
		return new Response("ž", { status: 404, headers: h });
	} }`), enginetest.Head{}, "")
	if a.Status != 404 || string(a.Body) != "ž" {
		t.Errorf("answer %+v", a)
	}
	if got := fmt.Sprint(a.Headers["set-cookie"], a.Headers["x-latin"], a.Headers["x-quote"]); got != "[a=1 b=2]é\"\\" {
		t.Errorf("headers %s", got)
	}
}

func TestOperations(t *testing.T) {
	i := prepared(t, `export default { async fetch() {
		const hex = (b) => [...new Uint8Array(b)].map((x) => x.toString(16).padStart(2, "0")).join("");
		const data = new TextEncoder().encode("abc");
		const [a, b] = await Promise.all([crypto.subtle.digest("SHA-1", data), crypto.subtle.digest("SHA-256", new Uint8Array(1000))]);
		return new Response(hex(a) + " " + hex(b));
	} }`)
	a := handle(t, i, enginetest.Head{}, "")
	want := "a9993e364706816aba3e25717850c26c9cd0d89d 541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53"
	if string(a.Body) != want {
		t.Errorf("answer %q, want %q", a.Body, want)
	}
}

func TestEnvironment(t *testing.T) {
	w := world()
	w.Env = []string{"NAME=value=x", "EMPTY=", "TEXT=žluť", "__proto__=p"}
	i := preparedIn(t, w, defaultPages, `export default { fetch(r, env) { return new Response(env.NAME + env.EMPTY + env.TEXT + Object.keys(env) + Object.isFrozen(env)) } }`)
	if a := handle(t, i, enginetest.Head{}, ""); string(a.Body) != "value=xžluťNAME,EMPTY,TEXT,__proto__true" {
		t.Errorf("answer %q", a.Body)
	}
}

// TestNothingLeft: what the engine uses inside is not in the function's reach.
func TestNothingLeft(t *testing.T) {
	got := answers(t, `const names = [];
		for (const n of ["__native", "std", "os", "bjson", "print", "scriptArgs", "process", "require", "Buffer", "dispatch", "install"]) if (n in globalThis) names.push(n);
		return new Response("left: " + names);`)
	if got != "left: " {
		t.Error(got)
	}
}
