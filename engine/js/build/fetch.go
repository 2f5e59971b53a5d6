package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxArchive bounds a download, in bytes.
	maxArchive = 64 << 20
	// maxSource bounds one unpacked file, in bytes.
	maxSource = 16 << 20
	// fetchTime bounds one download.
	fetchTime = 5 * time.Minute
)

// source is one archive from a registry, and the files in it that we compile.
type source struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Licence string   `json:"licence"`
	URL     string   `json:"url"`
	SHA256  string   `json:"sha256"`
	Folder  string   `json:"folder"` // in the archive, with a slash at the end
	Files   []string `json:"files"`
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func readLock(path string) ([]source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the lock file: %w", err)
	}
	var lock struct {
		Sources []source `json:"sources"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&lock); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return lock.Sources, nil
}

// archive gives the verified archive, from the user's cache or from its registry.
func (s *source) archive(ctx context.Context) ([]byte, error) {
	var kept string
	if dir, err := os.UserCacheDir(); err == nil {
		kept = filepath.Join(dir, "casemate", "sources", s.SHA256)
		if data, err := os.ReadFile(kept); err == nil && digest(data) == s.SHA256 {
			return data, nil
		}
	}
	data, err := download(ctx, s.URL)
	if err != nil {
		return nil, fmt.Errorf("fetching %s %s: %w", s.Name, s.Version, err)
	}
	if got := digest(data); got != s.SHA256 {
		return nil, fmt.Errorf("fetching %s %s: %s has the SHA-256 %s, not %s as locked", s.Name, s.Version, s.URL, got, s.SHA256)
	}
	if kept != "" { // a cache that cannot be written only costs the next download
		_ = replace(kept, data)
	}
	return data, nil
}

func download(ctx context.Context, url string) (_ []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "casemate-build") // crates.io refuses clients without a name
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxArchive+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxArchive {
		return nil, fmt.Errorf("%s is larger than %d bytes", url, maxArchive)
	}
	return data, nil
}

// unpack writes the listed files of the archive into dir, after our edits.
func (s *source) unpack(archive []byte, dir string) error {
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", s.Name, err)
	}
	want := slices.Clone(s.Files)
	for tr := tar.NewReader(zip); len(want) > 0; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("unpacking %s: the archive lacks %s", s.Name, strings.Join(want, ", "))
		}
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", s.Name, err)
		}
		name, ours := strings.CutPrefix(h.Name, s.Folder)
		i := slices.Index(want, name)
		if !ours || i < 0 || h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(tr, maxSource))
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", s.Name, err)
		}
		if data, err = edit(name, data); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return fmt.Errorf("unpacking %s: %w", s.Name, err)
		}
		want = slices.Delete(want, i, i+1)
	}
	return nil
}
