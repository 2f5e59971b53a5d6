package cli

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"

	"github.com/casemate-dev/casemate/internal/cli/contexts"
)

// trustStep is one store of authorities, and what puts ours there or takes it out.
type trustStep struct {
	Store    string     `json:"store"`
	Commands [][]string `json:"commands"` // each a program's path and its arguments
}

// authority is the certificate that is to be trusted.
type authority struct {
	path string // its PEM file
	name string // under which stores know it
	file string // name for a file in a store
	sha1 string // of the certificate, in hex; how macOS names it
}

// readAuthority checks that a context's authority is one certificate that may
// sign others and is limited to names: an authority for every name in the world
// is never put into a system's store.
func readAuthority(c contexts.Context, path string) (authority, error) {
	block, rest := pem.Decode([]byte(c.CA))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return authority{}, failf("the authority of %s is not one PEM certificate", c.Name).hint("start the node again with `casemate up`, which writes it anew")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA {
		return authority{}, failf("the authority of %s is not a certificate that signs others", c.Name).hint("start the node again with `casemate up`, which writes it anew")
	}
	if !cert.PermittedDNSDomainsCritical || len(cert.PermittedDNSDomains)+len(cert.PermittedIPRanges) == 0 {
		return authority{}, failf("the authority of %s is not limited to the node's names: whoever holds its key could stand in for any site", c.Name).
			hint("use it for single programs instead: casemate trust --print")
	}
	digest := sha256.Sum256(block.Bytes)
	short := hex.EncodeToString(digest[:4])
	return authority{
		path: path, name: "Casemate " + c.Name + " " + short, file: "casemate-" + c.Name + "-" + short + ".crt",
		sha1: fingerprint1(block.Bytes),
	}, nil
}

// trustPlan lists the stores of this machine that can be changed, and those that
// cannot, with the reason.
func (a *app) trustPlan(ca authority, undo bool) (steps []trustStep, skipped []string) {
	add := func(s trustStep, why string) {
		if why != "" {
			skipped = append(skipped, why)
		} else if s.Store != "" {
			steps = append(steps, s)
		}
	}
	switch a.env.System {
	case "darwin":
		add(a.keychain(ca, undo))
	case "linux":
		add(a.systemStore(ca, undo))
	default:
		skipped = append(skipped, "the system's store: not known how on "+a.env.System)
	}
	nss, why := a.nssStores(ca, undo)
	steps = append(steps, nss...)
	if why != "" {
		skipped = append(skipped, why)
	}
	return steps, skipped
}

// anchors are the folders in which Linux systems keep authorities of their own,
// and the program that takes them up.
func anchors() [][2]string {
	return [][2]string{
		{"/usr/local/share/ca-certificates", "update-ca-certificates"},   // Debian, Alpine
		{"/etc/pki/ca-trust/source/anchors", "update-ca-trust"},          // Fedora, RHEL
		{"/etc/ca-certificates/trust-source/anchors", "update-ca-trust"}, // Arch
	}
}

func (a *app) systemStore(ca authority, undo bool) (trustStep, string) {
	const store = "the system's store"
	var sudo []string
	if !a.env.Root {
		p, err := a.env.Programs.Find("sudo")
		if err != nil {
			return trustStep{}, store + ": needs root, and sudo is not installed"
		}
		sudo = []string{p}
	}
	for _, at := range anchors() {
		update, err := a.env.Programs.Find(at[1])
		if err != nil {
			continue
		}
		if _, err := os.Stat(at[0]); err != nil && at[1] == "update-ca-trust" { // two systems share the program
			continue
		}
		target := filepath.Join(at[0], ca.file)
		tool, args := "install", []string{"-D", "-m", "0644", ca.path, target}
		if undo {
			tool, args = "rm", []string{"-f", target}
		}
		p, err := a.env.Programs.Find(tool)
		if err != nil {
			return trustStep{}, store + ": " + err.Error()
		}
		refresh := append(append([]string{}, sudo...), update)
		if undo && at[1] == "update-ca-certificates" {
			refresh = append(refresh, "--fresh")
		}
		return trustStep{store, [][]string{append(append(append([]string{}, sudo...), p), args...), refresh}}, ""
	}
	return trustStep{}, store + ": neither update-ca-certificates nor update-ca-trust is installed (package ca-certificates)"
}

func (a *app) keychain(ca authority, undo bool) (trustStep, string) {
	const store = "the login keychain"
	p, err := a.env.Programs.Find("security")
	if err != nil {
		return trustStep{}, store + ": " + err.Error()
	}
	chain := filepath.Join(a.env.Getenv("HOME"), "Library", "Keychains", "login.keychain-db")
	if undo {
		return trustStep{store, [][]string{{p, "remove-trusted-cert", ca.path}, {p, "delete-certificate", "-Z", ca.sha1, chain}}}, ""
	}
	return trustStep{store, [][]string{{p, "add-trusted-cert", "-r", "trustRoot", "-k", chain, ca.path}}}, ""
}

// nssStores are the databases of Chromium and Firefox, which have their own.
func (a *app) nssStores(ca authority, undo bool) ([]trustStep, string) {
	home := a.env.Getenv("HOME")
	if home == "" {
		return nil, ""
	}
	var dirs []string
	for _, pattern := range []string{
		".pki/nssdb/cert9.db",
		".mozilla/firefox/*/cert9.db",
		"snap/firefox/common/.mozilla/firefox/*/cert9.db",
		"Library/Application Support/Firefox/Profiles/*/cert9.db",
	} {
		found, err := filepath.Glob(filepath.Join(escapeGlob(home), pattern))
		if err == nil { // only a malformed pattern fails, and these are not
			dirs = append(dirs, found...)
		}
	}
	if len(dirs) == 0 {
		return nil, ""
	}
	p, err := a.env.Programs.Find("certutil")
	if err != nil {
		return nil, "Firefox and Chromium: certutil is not installed (package libnss3-tools, or nss)"
	}
	var steps []trustStep
	for _, db := range dirs {
		args := []string{p, "-d", "sql:" + filepath.Dir(db), "-A", "-t", "C,,", "-n", ca.name, "-i", ca.path}
		if undo {
			args = []string{p, "-d", "sql:" + filepath.Dir(db), "-D", "-n", ca.name}
		}
		steps = append(steps, trustStep{"browser, " + filepath.Dir(db), [][]string{args}})
	}
	return steps, ""
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
