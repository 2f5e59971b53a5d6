package main

import (
	"context"
	"encoding/json"
)

func main() { Serve(reorder) }

// change is a change of a row, as logical replication tells it. Old is there for an
// update when the table's replica identity is full.
type change struct {
	Operation string `json:"operation"`
	New       item   `json:"new"`
	Old       *item  `json:"old"`
}

type item struct {
	SKU  string `json:"sku"`
	Left int    `json:"left"`
}

// few is when to order more.
const few = 5

// reorder orders what is about to run out, once: when the line is crossed.
func reorder(_ context.Context, r *Request) (*Response, error) {
	var c change
	if err := json.Unmarshal(r.Body, &c); err != nil {
		return nil, err
	}
	order := c.New.Left < few && (c.Old == nil || c.Old.Left >= few)
	if order {
		println("order more of", c.New.SKU)
	}
	return JSON(200, map[string]bool{"order": order})
}
