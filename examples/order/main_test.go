package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
)

func TestTotals(t *testing.T) {
	tests := map[string]struct {
		order Order
		want  Totals
	}{
		"small":         {Order{Items: []Item{{"a", 1, 1000}}}, Totals{Units: 1, Subtotal: 1000, Shipping: 495, Tax: 299, Total: 1794}},
		"ships free":    {Order{Items: []Item{{"a", 5, 1000}}}, Totals{Units: 5, Subtotal: 5000, Tax: 1000, Total: 6000}},
		"discount":      {Order{Items: []Item{{"a", 3, 333}}, Discount: 50}, Totals{Units: 3, Subtotal: 999, Discount: 500, Shipping: 495, Tax: 199, Total: 1193}},
		"all of it off": {Order{Items: []Item{{"a", 1, 9999}}, Discount: 100}, Totals{Units: 1, Subtotal: 9999, Discount: 9999, Shipping: 495, Tax: 99, Total: 594}},
	}
	for name, tt := range tests {
		if got := tt.order.totals(); got != tt.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, tt.want)
		}
	}
}

func TestTheLargestOrderDoesNotOverflow(t *testing.T) {
	o := Order{Currency: "EUR"}
	for range maxItems {
		o.Items = append(o.Items, Item{"a", maxQuantity, maxPrice})
	}
	if problems := o.check(); len(problems) > 0 {
		t.Fatalf("refused: %v", problems)
	}
	if got := o.totals(); got.Subtotal != 1_000_000_000_000 || got.Total != 1_200_000_000_000 {
		t.Errorf("got %+v", got)
	}
}

func TestProblemsNameEveryField(t *testing.T) {
	body := `{"currency":"DOGE","discountPercent":101,"items":[{"sku":"","quantity":0,"priceCents":-1}]}`
	got, err := price(context.Background(), &Request{Body: []byte(body)})
	if err != nil || got.Status != 422 {
		t.Fatalf("got %+v, %v, want status 422", got, err)
	}
	var answer struct{ Errors []Problem }
	if err := json.Unmarshal(got.Body, &answer); err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, p := range answer.Errors {
		fields = append(fields, p.Field)
	}
	want := "currency discountPercent items[0].sku items[0].quantity items[0].priceCents"
	if strings.Join(fields, " ") != want {
		t.Errorf("got %v, want %v", fields, want)
	}
}

func TestWhatIsNotAnOrderIsRefused(t *testing.T) {
	for _, body := range []string{"", "{", "[]", `{"discount":10}`, `{"currency":"EUR"} {}`, `{"items":[{"quantity":1.5}]}`} {
		got, err := price(context.Background(), &Request{Body: []byte(body)})
		if err != nil || got.Status != 400 {
			t.Errorf("%s: got %+v, %v, want status 400", body, got, err)
		}
	}
}
