package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
)

func main() { Serve(price, sample) }

// sample is priced once, at deployment: encoding/json has then met these types.
var sample = &Request{Body: []byte(`{"currency":"EUR","items":[{"sku":"SAMPLE","quantity":1,"priceCents":100}]}`)}

// Order is what a shop sends. Amounts are integer cents: money is never a float.
type Order struct {
	Currency string `json:"currency"`
	Items    []Item `json:"items"`
	Discount int    `json:"discountPercent"`
}

// Item is one line of an order.
type Item struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
	Price    int64  `json:"priceCents"`
}

// Totals is what the shop gets back, in cents.
type Totals struct {
	Currency string `json:"currency"`
	Units    int64  `json:"units"`
	Subtotal int64  `json:"subtotalCents"`
	Discount int64  `json:"discountCents"`
	Shipping int64  `json:"shippingCents"`
	Tax      int64  `json:"taxCents"`
	Total    int64  `json:"totalCents"`
}

const (
	maxItems    = 100
	maxQuantity = 1_000
	maxPrice    = 10_000_000 // with the two above, no sum leaves 64 bits

	shipping     = 495
	freeShipping = 5_000 // from this subtotal on, after the discount
	taxPercent   = 20
)

// price validates an order and adds it up.
func price(_ context.Context, r *Request) (*Response, error) {
	var o Order
	dec := json.NewDecoder(bytes.NewReader(r.Body))
	dec.DisallowUnknownFields() // a misspelt discount must not be silently lost
	if err := dec.Decode(&o); err != nil || dec.More() {
		return JSON(400, map[string]string{"error": "the body is not one order in JSON"})
	}
	if problems := o.check(); len(problems) > 0 {
		println("refused with", len(problems), "problems")
		return JSON(422, map[string]any{"errors": problems})
	}
	return JSON(200, o.totals())
}

// Problem says what is wrong with one field.
type Problem struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// check finds everything that is wrong, so that it can be put right in one go.
func (o *Order) check() []Problem {
	var problems []Problem
	require := func(ok bool, field, message string) {
		if !ok {
			problems = append(problems, Problem{field, message})
		}
	}
	require(o.Currency == "EUR" || o.Currency == "GBP" || o.Currency == "USD", "currency", "must be EUR, GBP or USD")
	require(o.Discount >= 0 && o.Discount <= 100, "discountPercent", "must be from 0 to 100")
	require(len(o.Items) > 0, "items", "must not be empty")
	require(len(o.Items) <= maxItems, "items", "must not be more than "+strconv.Itoa(maxItems))
	for i, item := range o.Items[:min(len(o.Items), maxItems)] {
		at := "items[" + strconv.Itoa(i) + "]."
		require(item.SKU != "" && len(item.SKU) <= 64, at+"sku", "must have 1 to 64 characters")
		require(item.Quantity >= 1 && item.Quantity <= maxQuantity, at+"quantity", "must be from 1 to "+strconv.Itoa(maxQuantity))
		require(item.Price >= 0 && item.Price <= maxPrice, at+"priceCents", "must be from 0 to "+strconv.Itoa(maxPrice))
	}
	return problems
}

func (o *Order) totals() Totals {
	t := Totals{Currency: o.Currency}
	for _, item := range o.Items {
		t.Units += item.Quantity
		t.Subtotal += item.Quantity * item.Price
	}
	t.Discount = percent(t.Subtotal, int64(o.Discount))
	if t.Subtotal-t.Discount < freeShipping {
		t.Shipping = shipping
	}
	net := t.Subtotal - t.Discount + t.Shipping
	t.Tax = percent(net, taxPercent)
	t.Total = net + t.Tax
	return t
}

// percent rounds half a cent up.
func percent(cents, p int64) int64 { return (cents*p + 50) / 100 }
