package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/node"
)

// deployNoop deploys a function whose code nobody will look at.
func deployNoop(ctx context.Context, r node.Ready) error {
	c, err := api.NewClient(api.Options{URL: r.ControlURL, CA: r.CA, Key: r.AdminKey})
	if err != nil {
		return err
	}
	code := []byte("\x00asm\x01\x00\x00\x00")
	digest := string(function.DigestOf(code))
	if err := c.PutArtifact(ctx, digest, int64(len(code)), bytes.NewReader(code)); err != nil {
		return err
	}
	fns := []api.FunctionSpec{{
		Name: "hello", Artifact: digest,
		Config: api.FunctionConfig{Runtime: "wasm", HTTP: []api.HTTPTrigger{{Method: "POST", Path: "/hello"}}},
	}}
	plan, err := c.Plan(ctx, "default", api.PlanRequest{Functions: fns})
	if err != nil {
		return err
	}
	_, err = c.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: fns})
	return err
}

// awaitFile waits until a file exists.
func awaitFile(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(name); err == nil {
			return nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %v", name, ctx.Err())
		case <-tick.C:
		}
	}
}
