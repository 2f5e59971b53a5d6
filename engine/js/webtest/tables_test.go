package webtest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
)

// Differences between the tables of the locked versions and the standard of today:
// ^ is percent-encoded in paths since November 2024, and of the spaces at the end of
// an opaque path the last one is percent-encoded (instead of removing them in
// setters) since 2025.
//
// Characters of the names listed are assigned since Unicode 17.
var newerThanTables = struct{ urls, setters, names []string }{
	urls: []string{
		"\"foo://host/ !\\\"$%&'()*+,-./:;<=>@[\\\\]^_`{|}~\" on null",
		"\"wss://host/ !\\\"$%&'()*+,-./:;<=>@[\\\\]^_`{|}~\" on null",
	},
	setters: []string{
		"pathname of a:/ to \"\\u0000\\u0001\\t\\n\\r\\u001f !\\\"#$%&'()*+,-./09:;<=>?@AZ[\\\\]^_`az{|}~\u007f\u0080\u0081Éé\"",
		`search of data:space ?query to ""`,
		`search of sc:space ?query to ""`,
		`search of data:space  ?query#fragment to ""`,
		`search of sc:space  ?query#fragment to ""`,
		`hash of data:space                                                                                                                                  #fragment to ""`,
		`hash of sc:space    #fragment to ""`,
		`hash of data:space  ?query#fragment to ""`,
		`hash of sc:space  ?query#fragment to ""`,
	},
	names: []string{
		`"𲤱20.音.ꡦ1." (V7 A4_2)`,
		`"xn--20-9802c.xn--0w5a.xn--1-eg4e." (V7 A4_2)`,
		`"xn--9-i0j5967eg3qz.ss" (V7)`,
	},
}

type verdict struct {
	Passed    int      `json:"passed"`
	Failed    []string `json:"failed"`
	Tolerated int      `json:"tolerated"`
}

func TestTables(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the tables, which may have to be downloaded")
	}
	files := tables(t)
	body, err := json.Marshal(map[string]any{
		"urls":    json.RawMessage(files["urltestdata.json"]),
		"setters": json.RawMessage(files["setters_tests.json"]),
		"names":   string(files["IdnaTestV2.txt"]),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		URLs    verdict `json:"urls"`
		Setters verdict `json:"setters"`
		Names   verdict `json:"names"`
	}
	if err := json.Unmarshal(serve(t, text(t, "tables.js"), body).Body, &got); err != nil {
		t.Fatal(err)
	}
	check(t, "URLs", got.URLs, 810, newerThanTables.urls)
	check(t, "setters", got.Setters, 240, newerThanTables.setters)
	check(t, "names", got.Names, 5400, newerThanTables.names)
	// Names that only the Bidi rule or joining types forbid: we let some pass.
	if got.Names.Tolerated > 500 {
		t.Errorf("%d names pass that the Bidi rule or ContextJ forbid, more than 500", got.Names.Tolerated)
	}
}

// check compares a verdict with how many must pass and which may fail, and do.
func check(t *testing.T, what string, v verdict, least int, may []string) {
	t.Helper()
	if v.Passed < least {
		t.Errorf("%s: %d passed, fewer than %d", what, v.Passed, least)
	}
	var failing []string
	for _, f := range v.Failed {
		at := slices.IndexFunc(may, func(m string) bool { return len(f) > len(m) && f[:len(m)+1] == m+":" })
		if at < 0 {
			t.Errorf("%s: %s", what, f)
			continue
		}
		failing = append(failing, may[at])
	}
	for _, m := range may {
		if !slices.Contains(failing, m) {
			t.Errorf("%s: listed as failing, but it does not: %s", what, m)
		}
	}
}

// tables gives the files of tables.lock.json by their last name, from the user's
// cache or from the registry.
func tables(t *testing.T) map[string][]byte {
	t.Helper()
	var lock struct {
		Sources []struct {
			Name, URL, SHA256 string
			Files             []string
		}
	}
	if err := json.Unmarshal([]byte(text(t, "tables.lock.json")), &lock); err != nil {
		t.Fatalf("tables.lock.json: %v", err)
	}
	out := map[string][]byte{}
	for _, s := range lock.Sources {
		archive, err := fetch(s.URL, s.SHA256)
		if err != nil {
			t.Fatalf("fetching the tables of %s: %v", s.Name, err)
		}
		zip, err := gzip.NewReader(bytes.NewReader(archive))
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(zip); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(s.Files, h.Name) {
				continue
			}
			if out[path.Base(h.Name)], err = io.ReadAll(tr); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range s.Files {
			if out[path.Base(f)] == nil {
				t.Fatalf("the archive of %s lacks %s", s.Name, f)
			}
		}
	}
	return out
}

func fetch(url, sum string) ([]byte, error) {
	matches := func(data []byte) bool {
		got := sha256.Sum256(data)
		return hex.EncodeToString(got[:]) == sum
	}
	kept := ""
	if dir, err := os.UserCacheDir(); err == nil {
		kept = filepath.Join(dir, "casemate", "sources", sum)
		if data, err := os.ReadFile(kept); err == nil && matches(data) {
			return data, nil
		}
	}
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "casemate-build") // crates.io refuses clients without a name
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if !matches(data) {
		return nil, fmt.Errorf("%s does not have the locked SHA-256", url)
	}
	if kept != "" { // a cache that cannot be written only costs the next download
		if os.MkdirAll(filepath.Dir(kept), 0o700) == nil {
			_ = os.WriteFile(kept, data, 0o600)
		}
	}
	return data, nil
}
